// How many negatives of a query are closer than its positive, counted where their cosines are in registers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#include "cpu/tile.h"

namespace sslfast::cpu {

// The cosines of the positives of a tile's columns, and how many of its rows are closer; null: not wanted.
struct Closer {
    const float* positive = nullptr;
    int32_t* count = nullptr;

    SSLFAST_INLINE void add(const Block& block, const Counted& counted, int64_t i, int64_t j) const {
        for (int64_t v = 0; v < kVectors; ++v) {
            const int64_t at = j + v * kWidth;
            Integers closer;
            std::memcpy(&closer, count + at, sizeof closer);
            for (int64_t r = 0; r < kRows; ++r)
                closer -= counted.only(i + r, at, block.at[r][v], -INFINITY) > load(positive + at);
            std::memcpy(count + at, &closer, sizeof closer);
        }
    }
};

// Of every query the cosine of its positive, summed up as those of a tile are: of equal candidates none is closer.
class Positives {
public:
    // positive(i, row) reads that of query i.
    Positives(const Packed& queries, int64_t count, const std::function<void(int64_t, float*)>& positive);

    // Of a tile that begins with this query, whose counts these are.
    Closer from(int64_t query, int32_t* count) const { return {cosines_.get() + query, count}; }

private:
    Buffer cosines_;
};

}  // namespace sslfast::cpu
