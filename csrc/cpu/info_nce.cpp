#include "cpu/info_nce.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "cpu/chunk_sums.h"
#include "cpu/tasks.h"
#include "cpu/weighted_sums.h"

namespace sslfast::cpu {
namespace {

// The gradients to the candidates: each is pulled by the queries that are to find it, pull (n), and in the batch a negative
// of the others.
void candidates_backward(const float* pull, const float* grad, const Rows& unit, const float* scale, const float* shift,
                         const float* inverse_sum, const Kept& kept, const Candidates& candidates, int64_t n, int64_t m,
                         bool normalized, const Temperature& tau, bool in_batch, const Rows& dkey) {
    const int64_t depth = Strips::depth_of(unit.dim), blocks = count_of(n, kTile);
    const Packed q(in_batch ? n : 0, unit.dim, unit.paired()), k(in_batch ? m : 0, unit.dim, unit.paired());
    const Factors factors(grad, inverse_sum, shift, n, padded(n, kTile), tau);
    const Factors none(nullptr, nullptr, nullptr, 0, kTile, tau);
    if (in_batch) {
        pack_rows(read_rows(unit), 0, n, q);
        pack_rows(read_rows(unit), n, m, k);
    }
    const int64_t products = in_batch ? n * m * depth * 2 : 0;
    const int64_t floats = kWeightFloats + kTile * depth + 4 * depth;
    for_each_task(count_of(m, kTile), products + 32 * m * depth, floats, [&](int64_t task, float* scratch) {
        const int64_t first = task * kTile, size = std::min(kTile, m - first);
        const Strips sum{depth, scratch + kWeightFloats};
        if (in_batch)
            for (int64_t j = 0; j < n; j += kTile) {
                const int64_t width = std::min(kTile, n - j);
                const Cosines tile(k.operand(), first, size, q.panels(), j, width, kept.tile(task * blocks + j / kTile));
                weights_tile(tile, candidates.omitted().negatives(first, size, j, width), tau, tau.fixed, none.from(0),
                             factors.from(j), scratch);
                if (unit.paired()) pair_weights(scratch, size, width);
                sum_columns(scratch, size, width, false, q.operand(), j, sum, 0, j == 0);
            }
        float *const row = scratch + kWeightFloats + kTile * depth, *const gradient = row + depth;
        float *const pulled = gradient + depth, *const query = pulled + depth;
        for (int64_t j = first; j < first + size; ++j) {
            unit.read(n + j, row);
            candidates.pull(j, unit, pull, query, pulled, depth);
            std::fill_n(gradient, depth, 0.0f);
            if (in_batch) sum.get(j - first, gradient);
            project_row(gradient, row, pulled, 1, scale[n + j], tau.inverse, depth, normalized);
            dkey.write(j, gradient);
        }
    });
}

}  // namespace

void info_nce_forward(const Rows& query, const Rows& key, const Choice& choice, bool normalized, const Rows* queue,
                      int64_t queue_rows, double temperature, float* loss, float* shift, float* inverse_sum,
                      const Rows* mean, const Rows& unit, float* scale, int64_t* rank, const Kept& kept) {
    const Temperature tau(temperature, normalized);
    const int64_t n = choice.n, m = choice.m;
    const Packed q(n, unit.dim, unit.paired() && (!queue || queue->paired()));
    const ReadRow read = read_normalized(query, n, key, unit, scale, normalized);
    pack_rows(read, 0, n, q);
    read_each(read, n, m, q.depth());
    const Candidates candidates(choice);
    std::optional<Positives> positives;
    if (rank) positives.emplace(q, n, [&](int64_t i, float* row) { unit.read(n + candidates.target(i), row); });
    const ChunkSums sums = negative_sums(q, n, queue ? *queue : unit, queue ? 0 : n, queue ? queue_rows : m,
                                         queue ? Omitted{false} : candidates.omitted(), tau, mean != nullptr,
                                         rank ? &*positives : nullptr, kept);
    const int64_t depth = q.depth();
    const int64_t work = n * depth * (16 + 4 * sums.chunks());
    for_each_piece(n, kPanel, work, 2 * depth, [&](int64_t begin, int64_t end, float* row) {
        for (int64_t i = begin; i < end; ++i) {
            unit.read(i, row);
            unit.read(n + candidates.target(i), row + depth);
            const RowLoss result(sums.total(i, tau), float(dot(row, row + depth, depth)), tau);
            loss[i] = result.loss, shift[i] = result.shift, inverse_sum[i] = result.inverse_sum;
            if (rank) rank[i] = sums.closer(i);
            if (!mean) continue;
            sums.weighted(i, result.shift, result.inverse_sum, tau, row);
            mean->write(i, row);
        }
    });
}

double info_nce_backward(const float* grad, const Rows& unit, const float* scale, const float* loss, const float* shift,
                         const float* inverse_sum, const Rows& mean, const Kept& kept, const Choice& choice,
                         bool normalized, double temperature, bool in_batch, const Rows& dquery, const Rows* dkey) {
    const Temperature tau(temperature, normalized);
    const int64_t n = choice.n, depth = Strips::depth_of(unit.dim);
    const Candidates candidates(choice);
    std::vector<float> pull(n);
    std::vector<double> radial(n);
    for_each_piece(n, kPanel, 16 * n * depth, 3 * depth, [&](int64_t begin, int64_t end, float* query) {
        float *const key = query + depth, *const gradient = key + depth;
        for (int64_t i = begin; i < end; ++i) {
            pull[i] = grad[i] * std::expm1(-loss[i]);  // P - 1 of the positive, without cancellation
            unit.read(i, query);
            unit.read(n + candidates.target(i), key);
            mean.read(i, gradient);
            for (int64_t d = 0; d < depth; ++d) gradient[d] *= grad[i];
            radial[i] = project_row(gradient, query, key, pull[i], scale[i], tau.inverse, depth, normalized);
            dquery.write(i, gradient);
        }
    });
    if (dkey)
        candidates_backward(pull.data(), grad, unit, scale, shift, inverse_sum, kept, candidates, n, choice.m,
                            normalized, tau, in_batch, *dkey);
    double total = 0;
    for (const double r : radial) total += r;
    return -total * tau.inverse * tau.inverse;
}

}  // namespace sslfast::cpu
