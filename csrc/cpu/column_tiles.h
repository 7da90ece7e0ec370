// The tiles of rows against columns, which are packed by the thread that needs them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cpu/chunk_sums.h"
#include "cpu/tasks.h"
#include "cpu/weighted_sums.h"

namespace sslfast::cpu {

// A tile of columns, packed by the thread that needs it: a queue of negatives is read once for every group of rows.
struct ColumnTile {
    Operand operand;
    int64_t count;
    float longest;  // squared length

    ColumnTile(const Rows& columns, int64_t first, int64_t count, int64_t depth, bool paired, float* scratch)
        : operand(kTile, depth, paired, scratch), count(count), longest(0) {
        float* const rows = scratch + Operand::floats(kTile, depth, paired);
        for (int64_t i = 0; i < padded(count, kRows); i += 2) {
            for (int64_t r : {0, 1}) {
                float* const row = rows + r * depth;
                if (i + r >= count) {
                    std::fill_n(row, depth, 0.0f);
                    continue;
                }
                columns.read(first + i + r, row);
                const float squares = float(dot(row, row, depth));
                if (!std::isfinite(squares)) std::fill_n(row, depth, NAN);  // an infinite row is no negative at all
                longest = std::max(longest, squares);
            }
            operand.put(i, rows);
        }
    }

    static int64_t floats(int64_t depth, bool paired) { return Operand::floats(kTile, depth, paired) + 2 * depth; }
};

// f(chunk, columns, first column, first row, rows, its scratch tile, whether it is the chunk's first) for every tile of
// rows and columns: in order for a row and a chunk, otherwise as threads come free.
template <typename F>
void for_each_tile(const Packed& rows, int64_t count, const Rows& columns, int64_t first_column, int64_t column_count,
                   const ChunkSums& sums, int64_t products, const F& f) {
    const bool paired = rows.operand().paired;
    const int64_t groups = count_of(count, kGroup * kTile), depth = rows.depth();
    const int64_t tiles = count_of(column_count, kTile), floats = kWeightFloats + ColumnTile::floats(depth, paired);
    const int64_t work = count * column_count * depth * products;
    for_each_task(groups * sums.chunks(), work, floats, [&](int64_t task, float* scratch) {
        const int64_t chunk = task / groups, first_row = task % groups * kGroup * kTile;
        const int64_t begin = chunk * sums.chunk_tiles(), end = std::min(tiles, begin + sums.chunk_tiles());
        for (int64_t tile = begin; tile < end; ++tile) {
            const int64_t at = tile * kTile;
            const ColumnTile part(columns, first_column + at, std::min(kTile, column_count - at), depth, paired,
                                  scratch + kWeightFloats);
            for (int64_t i = first_row; i < std::min(count, first_row + kGroup * kTile); i += kTile)
                f(chunk, part, at, i, std::min(kTile, count - i), scratch, tile == begin);
        }
    });
}

inline Cosines cosines_of(const ColumnTile& columns, const Packed& rows, int64_t first_row, int64_t count) {
    return {columns.operand, 0, columns.count, rows.panels(), first_row, count};
}

}  // namespace sslfast::cpu
