#include "cpu/nt_xent.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/softmax_tile.h"
#include "cpu/tasks.h"
#include "cpu/tile.h"

namespace sslfast::cpu {
namespace {

constexpr int64_t kGroups = 64;  // groups of rows at most, each of which leaves sums of its own in every row

// The views in blocks of kTile rows, in one part, or where only pairs across count in two that begin a block each.
struct Views {
    int64_t n, parts, count, blocks;  // rows and blocks of a part
    int64_t apart;                    // from a row of the first view to its partner
    Packed packed;

    Views(const Rows& unit, int64_t n, bool across)
        : n(n),
          parts(across ? 2 : 1),
          count(2 * n / parts),
          blocks(count_of(count, kTile)),
          apart(across ? blocks * kTile : n),
          packed(parts * blocks * kTile, unit.dim) {
        for (int64_t part = 0; part < parts; ++part) pack_rows(unit, part * count, count, packed, part * blocks * kTile);
    }

    bool across() const { return parts == 2; }

    int64_t index(int64_t first, int64_t second) const {  // of a tile among those of the triangle or the square
        return across() ? (first - 1) * blocks + second : first * blocks - first * (first - 1) / 2 + second - first;
    }

    int64_t size(int64_t block) const { return std::min(kTile, count - block % blocks * kTile); }

    Cosines tile(int64_t first, int64_t second, const float* known) const {
        const Strips strips = packed.strips();
        return {strips.at(first * kTile, 0), packed.panels().panel(second * kTile),
                strips.depth,             size(first),     size(second),
                known};
    }

    // Every pair from one side, but for a view with itself and with its partner.
    Counted negatives(int64_t first, int64_t second) const {
        return {size(first), size(second), first == second ? 0 : -Counted::kNone, apart - (second - first) * kTile};
    }

    int64_t work(int64_t products) const { return 2 * n * n / parts * packed.depth() * products; }
};

}  // namespace

void nt_xent_forward(const Rows& z1, const Rows& z2, int64_t n, bool across, double temperature, float* loss,
                     float* shift, float* inverse_sum, const Rows& unit, float* scale, const Kept& kept) {
    const Temperature tau(temperature);
    normalize_rows(z1, z2, n, unit, scale);
    const Views views(unit, n, across);
    const int64_t wide = count_of(views.blocks, kGroups), groups = count_of(views.blocks, wide);  // of a part
    const int64_t rows = views.packed.rows();
    const Buffer sum(groups * rows), maximum(tau.fixed ? 0 : groups * rows);
    std::vector<std::pair<int64_t, int64_t>> pairs;
    for (int64_t second = across ? groups : 0; second < views.parts * groups; ++second)
        for (int64_t first = 0; first <= (across ? groups - 1 : second); ++first) pairs.emplace_back(first, second);

    for_each_task(int64_t(pairs.size()), views.work(1), SoftmaxTile::kFloats, [&](int64_t task, float* scratch) {
        const auto [first, second] = pairs[task];
        // The sums of the rows of one group over the columns of the other, and of its columns over the rows.
        SoftmaxTile tile(tau, scratch);
        const auto slot = [&](int64_t group, int64_t block) {
            const int64_t at = group % groups * rows + block * kTile;
            return Sums{sum.get() + at, tau.fixed ? nullptr : maximum.get() + at};
        };
        const auto begin = [&](int64_t group) { return group / groups * views.blocks + group % groups * wide; };
        const auto end = [&](int64_t group) {
            return std::min(begin(group) + wide, (group / groups + 1) * views.blocks);
        };
        const auto clear = [&](int64_t of, int64_t group) {
            for (int64_t block = begin(group); block < end(group); ++block) slot(of, block).clear();
        };
        clear(second, first);
        if (first != second) clear(first, second);
        for (int64_t i = begin(first); i < end(first); ++i)
            for (int64_t j = std::max(i, begin(second)); j < end(second); ++j)
                tile.add(views.tile(i, j, nullptr), views.negatives(i, j), kept.tile(views.index(i, j)),
                         slot(second, i), slot(first, j));
    });

    const int64_t depth = views.packed.depth();
    for_each_task(count_of(n, kPanel), 16 * n * depth, 2 * depth, [&](int64_t task, float* row) {
        for (int64_t i = task * kPanel; i < std::min(n, (task + 1) * kPanel); ++i) {
            views.packed.strips().get(i, row);
            views.packed.strips().get(i + views.apart, row + depth);
            const float positive = dot(row, row + depth, depth);
            for (const int64_t view : {0, 1}) {
                RunningSum total{tau.fixed ? 1.0f : kLeast, 0};
                for (int64_t group = 0; group < groups; ++group) {
                    const int64_t at = group * rows + i + view * views.apart;
                    total.merge(tau.fixed ? 1 : maximum.get()[at], sum.get()[at], tau);
                }
                const RowLoss result(total, positive, tau);
                const int64_t at = i + view * n;
                loss[at] = result.loss, shift[at] = result.shift, inverse_sum[at] = result.inverse_sum;
            }
        }
    });
}

double nt_xent_backward(const float* grad, const Rows& unit, const float* scale, const float* loss, const float* shift,
                        const float* inverse_sum, const Kept& kept, int64_t n, bool across, double temperature,
                        const Rows& dz) {
    const Temperature tau(temperature);
    const Views views(unit, n, across);
    const int64_t rows = views.packed.rows(), depth = views.packed.depth();
    const Strips u = views.packed.strips();
    std::vector<Factors> factors;
    for (int64_t first = 0; first < 2 * n; first += views.count)
        factors.emplace_back(grad + first, inverse_sum + first, shift + first, views.count, views.blocks * kTile, tau);
    const auto factors_of = [&](int64_t block) {
        return factors[block / views.blocks].from(block % views.blocks * kTile);
    };
    const Buffer gradient(rows * depth);
    const Strips du{depth, gradient.get()};

    const Tournament tournament(views.parts * views.blocks, across);
    tournament.run(
        views.work(3), kTile * kTile,
        [&](const Tournament::Pair& pair, float* weights) {
            const float* const known = kept.tile(views.index(pair.first, pair.second));
            weights_tile(views.tile(pair.first, pair.second, known), views.negatives(pair.first, pair.second), tau,
                         tau.fixed, factors_of(pair.first), factors_of(pair.second), weights);
        },
        [&](const Tournament::Pair& pair, const float* weights) {
            const bool diagonal = pair.first == pair.second, first = pair.round == 0;
            const int64_t height = views.size(pair.first), width = views.size(pair.second);
            const int64_t i = pair.first * kTile, j = pair.second * kTile;
            sum_columns(weights, height, width, diagonal, u, j, du, i, first);
            sum_rows(weights, height, width, diagonal, u, i, du, j, first && !diagonal);
        });

    std::vector<double> radial(2 * n);
    for_each_task(count_of(n, kPanel), 32 * n * depth, 4 * depth, [&](int64_t task, float* scratch) {
        float* const own[] = {scratch, scratch + depth};
        float* const gradients[] = {scratch + 2 * depth, scratch + 3 * depth};
        for (int64_t i = task * kPanel; i < std::min(n, (task + 1) * kPanel); ++i) {
            // P - 1 of the positives, without cancellation
            const float pull = grad[i] * std::expm1(-loss[i]) + grad[i + n] * std::expm1(-loss[i + n]);
            for (int64_t view : {0, 1}) u.get(i + view * views.apart, own[view]);
            for (int64_t view : {0, 1}) {
                const int64_t row = i + view * n;
                du.get(i + view * views.apart, gradients[view]);
                radial[row] = project_row(gradients[view], own[view], own[1 - view], pull, scale[row], tau, depth);
                dz.write(row, gradients[view]);
            }
        }
    });
    double total = 0;
    for (const double r : radial) total += r;
    return -total * tau.inverse * tau.inverse / 2;
}

}  // namespace sslfast::cpu
