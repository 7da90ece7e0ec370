// Rows and columns of a tile, summed with its weights.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "cpu/packed.h"

namespace sslfast::cpu {

// Floats of scratch for a tile of weights, stride kTile. Behind them, for rows that are bfloat16, are the same rounded to
// it, in pairs of two columns of a row and in pairs of two rows of a column.
inline constexpr int64_t kWeightFloats = kTile * kTile * (kPairs ? 2 : 1);

// Makes the pairs of the weights of a tile.
inline void pair_weights(float* weights, int64_t rows, int64_t columns) {
    float *const by_row = weights + kTile * kTile, *const by_column = by_row + kTile * kTile / 2;
    if (rows % 2) std::fill_n(weights + rows * kTile, padded(columns, kPanel), 0.0f);
    for (int64_t i = 0; i < padded(rows, 2); i += 2)
        for (int64_t j = 0; j < columns; j += kPanel) {
            const float *const row = weights + i * kTile + j, *const next = row + kTile;
            const Pairs own = rounded(load(row), load(row + kWidth)), other = rounded(load(next), load(next + kWidth));
            std::memcpy(by_row + (i * kTile + j) / 2, &own, sizeof own);
            std::memcpy(by_row + (i * kTile + kTile + j) / 2, &other, sizeof other);
            for (int64_t half : {0, 1}) {
                const Pairs both = zipped(own, other, half);
                std::memcpy(by_column + i / 2 * kTile + j + half * kWidth, &both, sizeof both);
            }
        }
}

// out (rows, depth in strips) += weights (rows, columns) x: the weights of a tile, as many rows of x as it has columns, from
// x_row on. With `upper` they are zero on and below the diagonal, and not read there. `first`: out is not added to.
inline void sum_columns(const float* weights, int64_t rows, int64_t columns, bool upper, const Operand& x, int64_t x_row,
                        const Strips& out, int64_t out_row, bool first) {
    const float* const pairs = weights + kTile * kTile;
    for (int64_t k = 0; k < out.depth; k += kPanel)
        for (int64_t i = 0; i < rows; i += kRows) {
            const int64_t from = upper ? i : 0, at = i * kTile + from, count = columns - from;
            const float* const b = x.of_sums(x_row + from, k);
            float* const to = out.at(out_row + i, k);
            if (kPairs && x.paired)
                Block::sum_to<kTile / 2, 1, true>(pairs + at / 2, b, count_of(count, 2), to, first);
            else
                Block::sum_to<kTile, 1, false>(weights + at, b, count, to, first);
        }
}

// The same with the weights transposed: out (columns, depth) += weightsᵀ x.
inline void sum_rows(const float* weights, int64_t rows, int64_t columns, bool upper, const Operand& x, int64_t x_row,
                     const Strips& out, int64_t out_row, bool first) {
    const float* const pairs = weights + kTile * kTile * 3 / 2;
    for (int64_t k = 0; k < out.depth; k += kPanel)
        for (int64_t j = 0; j < columns; j += kRows) {
            const int64_t count = upper ? std::min(rows, j + kRows) : rows;
            const float* const b = x.of_sums(x_row, k);
            float* const to = out.at(out_row + j, k);
            if (kPairs && x.paired)
                Block::sum_to<1, kTile, true>(pairs + j, b, count_of(count, 2), to, first);
            else
                Block::sum_to<1, kTile, false>(weights + j, b, count, to, first);
        }
}

}  // namespace sslfast::cpu
