// Matrices in the orders in which the products of the contrastive losses read them.
#pragma once

#include <cstdint>

#include "cpu/buffer.h"
#include "cpu/contrastive.h"
#include "cpu/micro_kernel.h"

namespace sslfast::cpu {

static_assert(kTile % kRows == 0 && kTile % kPanel == 0 && kRows % 2 == 0);

inline int64_t count_of(int64_t size, int64_t unit) { return (size + unit - 1) / unit; }
inline int64_t padded(int64_t size, int64_t unit) { return count_of(size, unit) * unit; }

// Rows of words in tiles of kTile, and a tile in strips of kPanel columns, each strip row after row. That a tile lies in one
// piece keeps its strips apart in the cache, whatever the number of rows.
struct Strips {
    int64_t depth;  // a multiple of kPanel, filled up with zeros
    float* data;

    static int64_t depth_of(int64_t dim) { return padded(dim, kPanel); }
    // Columns k, k + 1 … of row i, with k a multiple of kPanel.
    float* at(int64_t i, int64_t k) const { return data + i / kTile * kTile * depth + k * kTile + i % kTile * kPanel; }

    void put(int64_t i, const float* row) const;  // of `depth` floats
    void put_pairs(int64_t i, const float* row, int64_t count) const;  // of `count` floats that are bfloat16, two a word
    void get(int64_t i, float* row) const;
};

// Rows as two products read them: as the left operand of cosines, and as the right operand where rows are summed with
// weights. Strips of floats serve as both. Of bfloat16, `paired`, those of cosines have two columns of a row in a word, and
// those of sums two rows of a column.
struct Operand {
    bool paired;
    Strips cosines, sums;

    // In `data` of so many floats for a multiple of kTile rows.
    Operand(int64_t rows, int64_t depth, bool paired, float* data);
    static int64_t floats(int64_t rows, int64_t depth, bool paired);

    // Columns k, k + 1 … of row i or, `paired`, of rows i and i + 1, with i even.
    const float* of_sums(int64_t i, int64_t k) const { return sums.at(paired ? i / 2 : i, k); }

    void put(int64_t i, const float* rows, bool for_cosines = true) const;  // two of them, with i even
    void get(int64_t i, float* row) const;

private:
    // Words of a row for the cosines of so many columns.
    static int64_t words(int64_t depth, bool paired) { return paired ? Strips::depth_of(depth / 2) : depth; }
};

// Panels of kPanel rows, each column after column: the right operand of cosines.
struct Panels {
    int64_t depth;
    float* data;

    const float* panel(int64_t first_row) const { return data + first_row * depth; }
    void put(int64_t first_row, const Strips& rows, int64_t from) const;  // the kPanel rows of `rows` from `from` on
};

// One matrix as either operand, zeros up to multiples of kTile rows and of kPanel columns; without what only cosines need,
// where they are known.
class Packed {
public:
    Packed(int64_t count, int64_t dim, bool paired, bool for_cosines = true)
        : rows_(padded(count, kTile)),
          depth_(Strips::depth_of(dim)),
          by_row_(Operand::floats(rows_, depth_, paired)),
          operand_(rows_, depth_, paired, by_row_.get()),
          for_cosines_(for_cosines),
          by_column_(for_cosines ? rows_ * operand_.cosines.depth : 0) {}

    int64_t rows() const { return rows_; }
    int64_t depth() const { return depth_; }
    const Operand& operand() const { return operand_; }
    Panels panels() const { return {operand_.cosines.depth, by_column_.get()}; }

    // The kPanel rows from first_row on.
    void put(int64_t first_row, const float* rows) const {
        for (int64_t r = 0; r < kPanel; r += 2) operand_.put(first_row + r, rows + r * depth_, for_cosines_);
        if (for_cosines_) panels().put(first_row, operand_.cosines, first_row);
    }

private:
    int64_t rows_, depth_;
    Buffer by_row_;
    Operand operand_;
    bool for_cosines_;
    Buffer by_column_;
};

}  // namespace sslfast::cpu
