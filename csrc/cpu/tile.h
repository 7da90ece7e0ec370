// A tile of cosines, computed block by block; what is done with a block while it is in registers is the caller's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "cpu/packed.h"
#include "cpu/unit_rows.h"

namespace sslfast::cpu {

// Columns of the products that are summed up in registers at once: sums of parts are more accurate than one long sum, above
// all where every product is rounded too.
inline constexpr int64_t kDepth = kFused ? 128 : 32;

// A tile of strips against columns of panels, or the cosines themselves where they were kept (stride kTile).
struct Cosines {
    const float* a;
    const float* b;
    int64_t depth;  // in words, which are floats or, `paired`, two bfloat16
    bool paired;
    int64_t rows, columns;
    const float* known;

    Cosines(const Operand& left, int64_t first_row, int64_t rows, const Panels& right, int64_t first_column,
            int64_t columns, const float* known = nullptr)
        : a(left.cosines.at(first_row, 0)),
          b(right.panel(first_column)),
          depth(right.depth),
          paired(left.paired),
          rows(rows),
          columns(columns),
          known(known) {}
};

// Which pairs of a tile count: those of its first rows and columns, with columns behind `low` + the row (for the upper
// triangle), not at `skip` + the row, and, unless null, of different ids.
struct Counted {
    static constexpr int64_t kNone = int64_t(1) << 40;
    int64_t rows, columns, low = -kNone, skip = kNone;
    const int32_t *row_ids = nullptr, *column_ids = nullptr;

    // Of the block at (i, j): whether none of its pairs counts, and whether all do.
    bool none(int64_t i, int64_t j) const { return j + kPanel - 1 - i <= low; }
    bool all(int64_t i, int64_t j) const {
        return !row_ids && i + kRows <= rows && j + kPanel <= columns && j - (i + kRows - 1) > low &&
               (skip < j - i - kRows + 1 || skip > j - i + kPanel - 1);
    }

    // x with zero where a pair of row i and columns j, j + 1 … does not count.
    SSLFAST_INLINE Vector only(int64_t i, int64_t j, const Vector& x, float otherwise = 0) const {
        Integers column;
        for (int64_t lane = 0; lane < kWidth; ++lane) column[lane] = int32_t(j - i + lane);  // as seen from the row
        const auto near = [](int64_t place) { return int32_t(std::clamp<int64_t>(place, -kTile * 4, kTile * 4)); };
        Integers keep = (column > near(low)) & (column != near(skip)) & (column < near(columns - i));
        if (row_ids) {
            Integers ids;
            std::memcpy(&ids, column_ids + j, sizeof ids);
            keep &= ids != row_ids[i];
        }
        return i < rows ? (keep ? x : cpu::all(otherwise)) : cpu::all(otherwise);
    }
    // The block at (i, j), likewise.
    SSLFAST_INLINE Block only(int64_t i, int64_t j, Block block, float otherwise) const {
        if (!all(i, j))
            for (int64_t r = 0; r < kRows; ++r)
                for (int64_t v = 0; v < kVectors; ++v)
                    block.at[r][v] = only(i + r, j + v * kWidth, block.at[r][v], otherwise);
        return block;
    }
};

// The ids of rows, filled up to a whole tile; or none.
class Ids {
public:
    Ids(const int32_t* ids, int64_t count) : ids_(ids ? padded(count, kTile) : 0) {
        if (ids) std::copy_n(ids, count, ids_.data());
    }
    // Of the rows of a tile, or null if it has no pair of one id with those of another: most have none.
    const int32_t* from(int64_t row, int64_t rows, const Ids& others, int64_t other, int64_t other_rows) const {
        if (ids_.empty()) return nullptr;
        for (int64_t i = row; i < row + rows; ++i) {
            int32_t equal = 0;
            for (int64_t j = other; j < other + other_rows; ++j) equal |= ids_[i] == others.ids_[j];
            if (equal) return ids_.data() + row;
        }
        return nullptr;
    }
    const int32_t* at(int64_t row) const { return ids_.empty() ? nullptr : ids_.data() + row; }

private:
    std::vector<int32_t> ids_;
};

// Which pairs of rows and columns are no negatives: those of one number, if `diagonal`, and those of one id, if there are any.
struct Omitted {
    bool diagonal;
    Ids row_ids{nullptr, 0}, column_ids{nullptr, 0};

    // The pairs that count, of a tile that has columns as its rows.
    Counted negatives(int64_t first_column, int64_t columns, int64_t first_row, int64_t rows) const {
        return {columns,
                rows,
                -Counted::kNone,
                diagonal ? first_column - first_row : Counted::kNone,
                column_ids.from(first_column, columns, row_ids, first_row, rows),
                row_ids.at(first_row)};
    }
};

// epilogue(i, j, block) for every block in which pairs may count. Deep products of floats are summed in parts, in
// `partial`, a tile of the calling thread.
template <typename Epilogue>
SSLFAST_INLINE void for_each_block(const Cosines& tile, const Counted& counted, float* partial, const Epilogue& epilogue) {
    const auto product = kPairs && tile.paired ? Block::product<kPanel, 1, true> : Block::product<kPanel, 1, false>;
    int64_t from = tile.known ? tile.depth : 0;
    do {
        const int64_t to = tile.paired ? tile.depth : std::min(from + kDepth, tile.depth);
        for (int64_t j = 0; j < tile.columns; j += kPanel)
            for (int64_t i = 0; i < tile.rows; i += kRows) {
                if (counted.none(i, j)) continue;
                Block block = product(tile.a + from * kTile + i * kPanel, tile.b + j * tile.depth + from * kPanel, kPanel,
                                      (to - from) / kPanel, kTile * kPanel);
                const int64_t at = i * kTile + j;
                if (from) block.add((tile.known ? tile.known : partial) + at, kTile);
                if (to < tile.depth)
                    block.store(partial + at, kTile);
                else
                    epilogue(i, j, block);
            }
        from = to;
    } while (from < tile.depth);
}

// exp((cosine - shift)/tau). log2(e)/tau times a difference is rounded once: were log2(e)/tau one float, it would be another
// temperature, and the gradient of tau would show it.
class Exponential {
public:
    explicit Exponential(const Temperature& tau)
        : whole_(std::min(tau.inverse * kLog2e, 1e30)),  // enough for 0 or 1
          high_(float(whole_)),
          low_(whole_ < 1e7 ? float(whole_ - double(high_)) : 0) {}  // beyond, no two cosines are so near that it matters

    SSLFAST_INLINE Vector operator()(const Vector& cosine, const Vector& shift) const {
        const Vector above = cosine - shift;
        if constexpr (kFused) return exp2(fused(above, all(high_), above * low_));
        typedef double Doubles __attribute__((vector_size(kWidth * 8)));
        return exp2(__builtin_convertvector(__builtin_convertvector(above, Doubles) * whole_, Vector));
    }

private:
    double whole_;
    float high_, low_;
};

}  // namespace sslfast::cpu
