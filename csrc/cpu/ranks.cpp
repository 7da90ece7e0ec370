#include "cpu/ranks.h"

#include <algorithm>

#include "cpu/tasks.h"

namespace sslfast::cpu {

Positives::Positives(const Packed& rows, int64_t count, const std::function<void(int64_t, float*)>& positive)
    : cosines_(rows.rows()) {
    const int64_t depth = rows.depth();
    for_each_task(rows.rows() / kPanel, rows.rows() * depth * 8, 2 * kPanel * depth, [&](int64_t task, float* scratch) {
        const int64_t first = task * kPanel;
        const Panels panels{depth, scratch + kPanel * depth};
        std::fill_n(scratch, kPanel * depth, 0.0f);
        for (int64_t i = first; i < std::min(count, first + kPanel); ++i) positive(i, scratch + (i - first) * depth);
        panels.put(0, scratch);
        const float *const x = panels.panel(0), *const y = rows.panels().panel(first);
        for (int64_t lane = 0; lane < kPanel; lane += kWidth) {
            Vector total = {};
            for (int64_t from = 0; from < depth; from += kDepth) {
                Vector part = {};
                for (int64_t k = from; k < std::min(from + kDepth, depth); ++k)
                    part += load(x + k * kPanel + lane) * load(y + k * kPanel + lane);
                total = from ? part + total : part;
            }
            store(total, cosines_.get() + first + lane);
        }
    });
}

}  // namespace sslfast::cpu
