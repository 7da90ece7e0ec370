#include "cpu/siglip_loss.h"

#include <algorithm>
#include <vector>

#include "cpu/tasks.h"
#include "cpu/tile.h"
#include "cpu/tournament.h"
#include "cpu/weighted_sums.h"

namespace sslfast::cpu {
namespace {

// log(1 + exp(z)) and its derivative, from exp(-|z|), which cannot overflow.
class Sigmoid {
public:
    SSLFAST_INLINE explicit Sigmoid(const Vector& z) : positive_(z > 0.0f), above_(positive_ ? z : Vector{}) {
        constexpr float high = float(-kLog2e), low = float(-kLog2e - double(high));
        const Vector size = z < 0.0f ? -z : z;
        const Vector finite = size > 200.0f ? all(200) : size;  // enough for zero
        if constexpr (kFused)
            small_ = exp2(fused(finite, all(high), finite * low));
        else
            small_ = exp2(finite * high + finite * low);
    }

    // log(1 + e) = 2 atanh(t), t = e / (e + 2) <= 1/3: an odd series, its coefficients fitted to 8e-9.
    SSLFAST_INLINE Vector loss() const {
        const Vector t = small_ / (small_ + 2.0f), square = t * t;
        Vector p = all(2.817833424e-1f);
        p = p * square + 2.796060145e-1f;
        p = p * square + 4.002490938e-1f;
        p = p * square + 6.666631699e-1f;
        p = p * square + 2.0f;
        return above_ + t * p;
    }

    SSLFAST_INLINE Vector derivative() const { return (positive_ ? all(1) : small_) / (small_ + 1.0f); }

private:
    Integers positive_;
    Vector above_, small_;
};

// Images or texts, and what is summed up for them.
struct Side {
    Packed packed;
    bool wanted;
    Buffer sums;

    Side(const Rows& rows, int64_t n, bool wanted)
        : packed(n, rows.dim, rows.paired()), wanted(wanted), sums(wanted ? packed.rows() * packed.depth() : 0) {
        pack_rows(read_rows(rows), 0, n, packed);
    }

    Strips sum() const { return {packed.depth(), sums.get()}; }

    void write(int64_t n, const Rows& out) const {
        const int64_t depth = packed.depth();
        for_each_piece(n, kPanel, 4 * n * depth, depth, [&](int64_t begin, int64_t end, float* row) {
            for (int64_t i = begin; i < end; ++i) {
                sum().get(i, row);
                out.write(i, row);
            }
        });
    }
};

// A tile of weights, and of each of its rows, in kWidth parts, the sums of losses and weights.
struct SigmoidTile {
    static constexpr int64_t kFloats = kWeightFloats + kTile * 2 * kWidth;
    float *weights, *losses, *totals;

    explicit SigmoidTile(float* scratch)
        : weights(scratch), losses(scratch + kWeightFloats), totals(losses + kTile * kWidth) {}

    template <bool kLosses, bool kWeights>
    void fill(const Cosines& cosines, const Counted& own, float scale, float bias, const float* factor) const {
        const Counted inside{own.rows, own.columns};
        std::fill_n(losses, 2 * kTile * kWidth, 0.0f);
        for_each_block(cosines, inside, weights, [&](int64_t i, int64_t j, const Block& block) {
            const auto run = [&](const auto& turned, const auto& only) {
                SSLFAST_UNROLL
                for (int64_t r = 0; r < kRows; ++r) {
                    Vector loss = {}, total = {};
                    for (int64_t v = 0; v < kVectors; ++v) {
                        const Sigmoid sigmoid(turned(r, v, block.at[r][v] * scale + bias));
                        if constexpr (kLosses) loss += only(r, v, sigmoid.loss());
                        if constexpr (kWeights) {
                            const Vector weight = only(r, v, turned(r, v, sigmoid.derivative() * factor[i + r]));
                            total += weight;
                            store(weight, weights + (i + r) * kTile + j + v * kWidth);
                        }
                    }
                    float *const losses_of = losses + (i + r) * kWidth, *const totals_of = totals + (i + r) * kWidth;
                    if constexpr (kLosses) store(load(losses_of) + loss, losses_of);
                    if constexpr (kWeights) store(load(totals_of) + total, totals_of);
                }
            };
            if (own.all(i, j))
                run([](int64_t, int64_t, const Vector& x) { return x; }, [](int64_t, int64_t, const Vector& x) { return x; });
            else
                run([&](int64_t r, int64_t v, const Vector& x) { return own.only(i + r, j + v * kWidth, all(1), -1) * x; },
                    [&](int64_t r, int64_t v, const Vector& x) { return inside.only(i + r, j + v * kWidth, x); });
        });
    }
};

}  // namespace

void sigmoid_sums(const Rows& image, const Rows& text, int64_t n, bool own, double scale, double bias,
                  const float* factor, float* loss, float* weight, const Rows* dimage, const Rows* dtext) {
    const Side images(image, n, dimage), texts(text, n, dtext);
    const int64_t blocks = count_of(n, kTile), depth = images.packed.depth();
    const Buffer factors(blocks * kTile);
    std::fill_n(factors.get(), blocks * kTile, 1.0f);
    if (factor) std::copy_n(factor, n, factors.get());
    std::vector<double> losses(blocks * kTile), weights(blocks * kTile);
    const auto size = [&](int64_t block) { return std::min(kTile, n - block * kTile); };
    const Operand &u = images.packed.operand(), &v = texts.packed.operand();

    const Tournament tournament(2 * blocks, true);
    tournament.run(
        n * n * depth * (1 + images.wanted + texts.wanted), SigmoidTile::kFloats,
        [&](const Tournament::Pair& pair, float* scratch) {
            const int64_t i = pair.first, j = pair.second - blocks;
            const Cosines cosines(u, i * kTile, size(i), texts.packed.panels(), j * kTile, size(j));
            const Counted others{size(i), size(j), -Counted::kNone, own ? (i - j) * kTile : Counted::kNone};
            const SigmoidTile tile(scratch);
            const auto fill = weight ? (loss ? &SigmoidTile::fill<true, true> : &SigmoidTile::fill<false, true>)
                                     : &SigmoidTile::fill<true, false>;
            (tile.*fill)(cosines, others, float(scale), float(bias), factors.get() + i * kTile);
            if (u.paired && weight) pair_weights(scratch, size(i), size(j));
        },
        [&](const Tournament::Pair& pair, const float* scratch) {
            const int64_t i = pair.first * kTile, j = (pair.second - blocks) * kTile;
            const int64_t height = size(pair.first), width = size(pair.second - blocks);
            for (int64_t r = 0; r < height; ++r) {
                const float* const lanes = scratch + kWeightFloats + r * kWidth;
                losses[i + r] += sum(load(lanes));
                weights[i + r] += sum(load(lanes + kTile * kWidth));
            }
            if (images.wanted) sum_columns(scratch, height, width, false, v, j, images.sum(), i, pair.begins_first);
            if (texts.wanted) sum_rows(scratch, height, width, false, u, i, texts.sum(), j, pair.begins_second);
        });

    for (int64_t i = 0; i < n; ++i) {
        if (loss) loss[i] = float(losses[i]);
        if (weight) weight[i] = float(weights[i]);
    }
    if (dimage) images.write(n, *dimage);
    if (dtext) texts.write(n, *dtext);
}

}  // namespace sslfast::cpu
