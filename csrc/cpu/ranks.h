// How many negatives of a row are closer than its positive, counted where their cosines are in registers.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>

#include "cpu/tile.h"

namespace sslfast::cpu {

// The cosines of the positives of one side of a tile, and how many of the other side are closer; null: not wanted.
struct Closer {
    const float* positive = nullptr;
    int32_t* count = nullptr;

    // Of the rows of a block, to its columns from j on.
    SSLFAST_INLINE void add_to_columns(const Block& block, int64_t j) const {
        for (int64_t v = 0; v < kVectors; ++v) {
            int32_t* const to = count + j + v * kWidth;
            Integers closer;
            std::memcpy(&closer, to, sizeof closer);
            for (int64_t r = 0; r < kRows; ++r) closer -= block.at[r][v] > load(positive + j + v * kWidth);
            std::memcpy(to, &closer, sizeof closer);
        }
    }

    // Of its columns, to its rows from i on.
    SSLFAST_INLINE void add_to_rows(const Block& block, int64_t i) const {
        for (int64_t r = 0; r < kRows; ++r) {
            Integers closer = {};
            for (int64_t v = 0; v < kVectors; ++v) closer -= block.at[r][v] > all(positive[i + r]);
            count[i + r] += sum(closer);
        }
    }
};

// Of every row the cosine of its positive, summed up as those of a tile are: of equal candidates none is closer.
class Positives {
public:
    // positive(i, row) reads that of row i.
    Positives(const Packed& rows, int64_t count, const std::function<void(int64_t, float*)>& positive);

    // Of a tile that begins with this row, whose counts these are.
    Closer from(int64_t row, int32_t* count) const { return {cosines_.get() + row, count}; }

private:
    Buffer cosines_;
};

}  // namespace sslfast::cpu
