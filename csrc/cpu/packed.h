// Matrices in the two orders in which the products of the contrastive losses read them.
#pragma once

#include <cstdint>

#include "cpu/buffer.h"
#include "cpu/contrastive.h"
#include "cpu/micro_kernel.h"

namespace sslfast::cpu {

static_assert(kTile % kRows == 0 && kTile % kPanel == 0);

inline int64_t count_of(int64_t size, int64_t unit) { return (size + unit - 1) / unit; }
inline int64_t padded(int64_t size, int64_t unit) { return count_of(size, unit) * unit; }

// Rows in tiles of kTile, and a tile in strips of kPanel columns, each strip row after row. A strip serves as the left operand
// of cosines, and as the right operand where rows are summed with weights. That a tile lies in one piece keeps its strips
// apart in the cache, whatever the number of rows.
struct Strips {
    int64_t depth;  // a multiple of kPanel, filled up with zeros
    float* data;

    static int64_t depth_of(int64_t dim) { return padded(dim, kPanel); }
    // Columns k, k + 1 … of row i, with k a multiple of kPanel.
    float* at(int64_t i, int64_t k) const { return data + i / kTile * kTile * depth + k * kTile + i % kTile * kPanel; }

    void put(int64_t i, const float* row) const;  // of `depth` floats
    void get(int64_t i, float* row) const;
};

// Panels of kPanel rows, each column after column: the right operand of cosines.
struct Panels {
    int64_t depth;
    float* data;

    const float* panel(int64_t first_row) const { return data + first_row * depth; }
    void put(int64_t first_row, const float* rows) const;  // (kPanel, depth)
};

// One matrix in both orders, zeros up to multiples of kTile rows and of kPanel columns.
class Packed {
public:
    Packed(int64_t count, int64_t dim)
        : rows_(padded(count, kTile)), depth_(Strips::depth_of(dim)), by_row_(rows_ * depth_), by_column_(rows_ * depth_) {}

    int64_t rows() const { return rows_; }
    int64_t depth() const { return depth_; }
    Strips strips() const { return {depth_, by_row_.get()}; }
    Panels panels() const { return {depth_, by_column_.get()}; }

    // The kPanel rows from first_row on.
    void put(int64_t first_row, const float* rows) const {
        for (int64_t r = 0; r < kPanel; ++r) strips().put(first_row + r, rows + r * depth_);
        panels().put(first_row, rows);
    }

private:
    int64_t rows_, depth_;
    Buffer by_row_, by_column_;
};

}  // namespace sslfast::cpu
