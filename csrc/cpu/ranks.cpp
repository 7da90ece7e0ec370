#include "cpu/ranks.h"

#include <algorithm>

#include "cpu/tasks.h"

namespace sslfast::cpu {

Positives::Positives(const Packed& rows, int64_t count, const std::function<void(int64_t, float*)>& positive)
    : cosines_(rows.rows()) {
    const int64_t depth = rows.depth();
    const bool paired = rows.operand().paired;
    const int64_t words = rows.panels().depth, floats = Operand::floats(kTile, depth, paired);
    const auto add = paired ? add_product<true> : add_product<false>;
    const int64_t scratch_floats = floats + kPanel * (words + depth);
    for_each_piece(rows.rows(), kPanel, rows.rows() * depth * 8, scratch_floats, [&](int64_t first, int64_t, float* scratch) {
        const Operand operand(kTile, depth, paired, scratch);
        const Panels panels{words, scratch + floats};
        float* const own = panels.data + kPanel * words;
        std::fill_n(own, kPanel * depth, 0.0f);
        for (int64_t i = first; i < std::min(count, first + kPanel); ++i) positive(i, own + (i - first) * depth);
        for (int64_t r = 0; r < kPanel; r += 2) operand.put(r, own + r * depth);
        panels.put(0, operand.cosines, 0);
        const float *const x = panels.panel(0), *const y = rows.panels().panel(first);
        const int64_t at_once = paired ? words : kDepth;
        for (int64_t lane = 0; lane < kPanel; lane += kWidth) {
            Vector total = {};
            for (int64_t from = 0; from < words; from += at_once) {
                Vector part = {};
                for (int64_t k = from; k < std::min(from + at_once, words); ++k)
                    add(part, load(x + k * kPanel + lane), load(y + k * kPanel + lane));
                total = from ? part + total : part;
            }
            store(total, cosines_.get() + first + lane);
        }
    });
}

}  // namespace sslfast::cpu
