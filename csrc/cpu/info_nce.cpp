#include "cpu/info_nce.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "cpu/chunk_sums.h"
#include "cpu/tasks.h"

namespace sslfast::cpu {

void info_nce_forward(const Rows& query, const Rows& key, int64_t n, const Rows* queue, int64_t queue_rows,
                      double temperature, float* loss, float* shift, float* inverse_sum, const Rows* mean,
                      const Rows& unit, float* scale, const Kept& kept) {
    const Temperature tau(temperature);
    normalize_rows(query, key, n, unit, scale);
    const Packed q(n, unit.dim);
    pack_rows(unit, 0, n, q);
    const ChunkSums sums = negative_sums(q, n, queue ? *queue : unit, queue ? 0 : n, queue ? queue_rows : n,
                                         Omitted{!queue}, tau, mean != nullptr, kept);
    const int64_t depth = q.depth();
    for_each_task(count_of(n, kPanel), n * depth * (16 + 4 * sums.chunks()), 2 * depth, [&](int64_t task, float* row) {
        for (int64_t i = task * kPanel; i < std::min(n, (task + 1) * kPanel); ++i) {
            unit.read(i, row);
            unit.read(n + i, row + depth);
            const RowLoss result(sums.total(i, tau), dot(row, row + depth, depth), tau);
            loss[i] = result.loss, shift[i] = result.shift, inverse_sum[i] = result.inverse_sum;
            if (!mean) continue;
            sums.weighted(i, result.shift, result.inverse_sum, tau, row);
            mean->write(i, row);
        }
    });
}

double info_nce_backward(const float* grad, const Rows& unit, const float* scale, const float* loss, const float* shift,
                         const float* inverse_sum, const Rows& mean, const Kept& kept, int64_t n,
                         double temperature, bool in_batch, const Rows& dquery, const Rows* dkey) {
    const Temperature tau(temperature);
    const int64_t depth = Strips::depth_of(unit.dim), blocks = count_of(n, kTile);
    std::optional<Packed> q, k;
    std::optional<Factors> factors, none;
    if (dkey && in_batch) {
        q.emplace(n, unit.dim);
        pack_rows(unit, 0, n, *q);
        factors.emplace(grad, inverse_sum, shift, n, q->rows(), tau);
        none.emplace(nullptr, nullptr, nullptr, 0, kTile, tau);
        k.emplace(n, unit.dim);
        pack_rows(unit, n, n, *k);
    }
    std::vector<double> radial(n);
    const int64_t products = dkey && in_batch ? n * n * depth * 2 : 0;
    for_each_task(blocks, products + 32 * n * depth, kTile * (kTile + depth) + 3 * depth, [&](int64_t task, float* scratch) {
        const int64_t first = task * kTile, size = std::min(kTile, n - first);
        const Strips sum{depth, scratch + kTile * kTile};
        // A key is also a negative of the other queries.
        if (products)
            for (int64_t j = 0; j < n; j += kTile) {
                const int64_t width = std::min(kTile, n - j);
                const Cosines tile{k->strips().at(first, 0), q->panels().panel(j), depth, size, width,
                                   kept.tile(task * blocks + j / kTile)};
                weights_tile(tile, {size, width, -Counted::kNone, first - j}, tau, tau.fixed, none->from(0),
                             factors->from(j), scratch);
                sum_columns(scratch, size, width, false, q->strips(), j, sum, 0, j == 0);
            }
        float *const query = scratch + kTile * (kTile + depth), *const key = query + depth, *const gradient = key + depth;
        for (int64_t i = first; i < first + size; ++i) {
            const float pull = grad[i] * std::expm1(-loss[i]);  // P - 1 of the positive, without cancellation
            unit.read(i, query);
            unit.read(n + i, key);
            mean.read(i, gradient);
            for (int64_t d = 0; d < depth; ++d) gradient[d] *= grad[i];
            radial[i] = project_row(gradient, query, key, pull, scale[i], tau, depth);
            dquery.write(i, gradient);
            if (!dkey) continue;
            std::fill_n(gradient, depth, 0.0f);
            if (products) sum.get(i - first, gradient);
            project_row(gradient, key, query, pull, scale[n + i], tau, depth);
            dkey->write(i, gradient);
        }
    });
    double total = 0;
    for (const double r : radial) total += r;
    return -total * tau.inverse * tau.inverse;
}

}  // namespace sslfast::cpu
