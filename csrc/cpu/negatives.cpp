#include "cpu/negatives.h"

#include <algorithm>
#include <optional>

#include "cpu/column_tiles.h"
#include "cpu/triangle.h"

namespace sslfast::cpu {

void negatives_forward(const Rows& rows, int64_t count, const Rows& columns, int64_t column_count, bool skip_diagonal,
                       const int32_t* row_ids, const int32_t* column_ids, const Rows* positives, double temperature,
                       float* shift, float* sum, const Rows* weighted, int64_t* rank) {
    const Temperature tau(temperature);
    const Omitted omitted{skip_diagonal, {row_ids, count}, {column_ids, column_count}};
    const Packed packed(count, rows.dim, rows.paired() && columns.paired());
    pack_rows(read_rows(rows), 0, count, packed);
    std::optional<Positives> found;
    if (rank) found.emplace(packed, count, [&](int64_t i, float* row) { positives->read(i, row); });
    const ChunkSums sums = negative_sums(packed, count, columns, 0, column_count, omitted, tau, weighted != nullptr,
                                         rank ? &*found : nullptr, {nullptr, 0});
    for_each_piece(count, kPanel, count * packed.depth() * sums.chunks() * 4, packed.depth(),
                   [&](int64_t begin, int64_t end, float* row) {
                      for (int64_t i = begin; i < end; ++i) {
                          const RunningSum total = sums.total(i, tau);
                          shift[i] = std::max(total.maximum, kLeast);  // of a row without any negative
                          sum[i] = float(total.sum);
                          if (rank) rank[i] = sums.closer(i);
                          if (!weighted) continue;
                          sums.weighted(i, shift[i], 1, tau, row);
                          weighted->write(i, row);
                      }
                  });
}

void negatives_backward(const Rows& rows, int64_t count, const Rows& columns, int64_t column_count, bool skip_diagonal,
                        const int32_t* row_ids, const int32_t* column_ids, const float* row_factor,
                        const float* row_shift, const float* column_factor, const float* column_shift,
                        double temperature, const Rows& out) {
    const Temperature tau(temperature);
    const Omitted omitted{skip_diagonal, {row_ids, count}, {column_ids, column_count}};
    const Packed packed(count, rows.dim, rows.paired() && columns.paired());
    pack_rows(read_rows(rows), 0, count, packed);
    ChunkSums sums(count, column_count, packed.depth(), true);
    const Factors of_rows(row_factor, nullptr, row_shift, count, packed.rows(), tau);
    const Factors of_columns(column_factor, nullptr, column_shift, column_count, padded(column_count, kTile), tau);
    for_each_tile(
        packed, count, columns, 0, column_count, sums, 2,
        [&](int64_t chunk, const ColumnTile& part, int64_t at, int64_t i, int64_t size, float* weights, bool first) {
            if (first) std::fill_n(sums.sums(chunk) + i, kTile, RunningSum{1, 0});
            weights_tile(cosines_of(part, packed, i, size), omitted.negatives(at, part.count, i, size), tau,
                         tau.fixed, of_columns.from(at), of_rows.from(i), weights);
            if (part.operand.paired) pair_weights(weights, part.count, size);
            sum_rows(weights, part.count, size, false, part.operand, 0, sums.weighted(chunk), i, first);
        });
    for_each_piece(count, kPanel, count * packed.depth() * sums.chunks() * 4, packed.depth(),
                   [&](int64_t begin, int64_t end, float* row) {
                      for (int64_t i = begin; i < end; ++i) {
                          sums.weighted(i, 1, 1, tau, row);
                          out.write(i, row);
                      }
                  });
}

void negatives_among_forward(const Rows& rows, int64_t count, const int32_t* ids, const int32_t* labels,
                             double temperature, float* shift, float* sum, float* positive, int64_t* rank,
                             const Kept& kept) {
    const Temperature tau(temperature);
    const Triangle triangle(rows, count, false, false, read_rows(rows), {}, ids, labels);
    const TriangleSums sums(triangle, tau, rank, kept);
    for (int64_t i = 0; i < count; ++i) {
        const RunningSum total = sums.total(i);
        shift[i] = total.maximum, sum[i] = float(total.sum);
        if (labels) positive[i] = sums.positive(i);
        if (rank) rank[i] = sums.closer(i);
    }
}

void negatives_among_backward(const Rows& rows, int64_t count, const int32_t* ids, const int32_t* labels,
                              const float* factor, const float* shift, const float* pull, const Kept& kept,
                              double temperature, const Rows& out) {
    const Temperature tau(temperature);
    const Triangle triangle(rows, count, false, false, read_rows(rows), kept, ids, labels);
    const Buffer sums(triangle.rows() * triangle.depth());
    const Strips du{triangle.depth(), sums.get()};
    weighted_triangle(triangle, {factor, nullptr, shift, pull}, tau, kept, du);
    for_each_piece(count, kPanel, count * du.depth * 4, du.depth, [&](int64_t begin, int64_t end, float* row) {
        for (int64_t i = begin; i < end; ++i) {
            du.get(i, row);
            out.write(i, row);
        }
    });
}

}  // namespace sslfast::cpu
