// The tiles of rows against columns, which are packed by the thread that needs them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cpu/chunk_sums.h"
#include "cpu/tasks.h"

namespace sslfast::cpu {

// A tile of columns, packed by the thread that needs it: a queue of negatives is read once for every group of rows.
struct ColumnTile {
    Strips strips;
    int64_t count;
    float longest;  // squared length

    ColumnTile(const Rows& columns, int64_t first, int64_t count, float* scratch, float* row)
        : strips{Strips::depth_of(columns.dim), scratch}, count(count), longest(0) {
        for (int64_t i = 0; i < kTile; ++i) {
            if (i < count)
                columns.read(first + i, row);
            else if (i >= padded(count, kRows))
                break;
            else
                std::fill_n(row, strips.depth, 0.0f);
            const float squares = dot(row, row, strips.depth);
            if (!std::isfinite(squares)) std::fill_n(row, strips.depth, NAN);  // an infinite row is no negative at all
            longest = std::max(longest, squares);
            strips.put(i, row);
        }
    }
};

// f(chunk, columns, first column, first row, rows, its scratch tile, whether it is the chunk's first) for every tile of
// rows and columns: in order for a row and a chunk, otherwise as threads come free.
template <typename F>
void for_each_tile(const Packed& rows, int64_t count, const Rows& columns, int64_t first_column, int64_t column_count,
                   const ChunkSums& sums, int64_t products, const F& f) {
    const int64_t groups = count_of(count, kGroup * kTile), depth = rows.depth();
    const int64_t tiles = count_of(column_count, kTile);
    const int64_t work = count * column_count * depth * products;
    for_each_task(groups * sums.chunks(), work, kTile * (kTile + depth) + depth, [&](int64_t task, float* scratch) {
        const int64_t chunk = task / groups, first_row = task % groups * kGroup * kTile;
        const int64_t begin = chunk * sums.chunk_tiles(), end = std::min(tiles, begin + sums.chunk_tiles());
        float *const strips = scratch + kTile * kTile, *const row = strips + kTile * depth;
        for (int64_t tile = begin; tile < end; ++tile) {
            const int64_t at = tile * kTile;
            const ColumnTile part(columns, first_column + at, std::min(kTile, column_count - at), strips, row);
            for (int64_t i = first_row; i < std::min(count, first_row + kGroup * kTile); i += kTile)
                f(chunk, part, at, i, std::min(kTile, count - i), scratch, tile == begin);
        }
    });
}

inline Cosines cosines_of(const ColumnTile& columns, const Packed& rows, int64_t first_row, int64_t count) {
    return {columns.strips.data, rows.panels().panel(first_row), rows.depth(), columns.count,
            count,               nullptr};
}

}  // namespace sslfast::cpu
