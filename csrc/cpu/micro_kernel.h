// The inner product of all contrastive losses: a block of accumulators that stays in registers.
#pragma once

#include <cstdint>

#include "cpu/vector.h"

namespace sslfast::cpu {

// Rows times vectors of accumulators: with two vectors of b and one number of a they fill the registers, and each product
// needs less than one load.
inline constexpr int64_t kRows = kRegisters == 32 ? 12 : 6, kVectors = 2;
inline constexpr int64_t kPanel = kVectors * kWidth;  // columns of a block

struct Block {
    Vector at[kRows][kVectors];

    SSLFAST_INLINE void add(const float* from, int64_t stride) {
        for (int64_t r = 0; r < kRows; ++r)
            for (int64_t v = 0; v < kVectors; ++v) at[r][v] += load(from + r * stride + v * kWidth);
    }

    SSLFAST_INLINE void store(float* to, int64_t stride) const {
        for (int64_t r = 0; r < kRows; ++r)
            for (int64_t v = 0; v < kVectors; ++v) cpu::store(at[r][v], to + r * stride + v * kWidth);
    }

    // The sum over k < depth of a[r * kRowStride + k * kStep] * b[k * kPanel ...], and over as many `parts` of the kind as
    // there are, `stride` apart in a and one behind the other in b. Not inlined: among other code the compiler would not
    // keep all accumulators in registers.
    template <int64_t kRowStride, int64_t kStep>
    static __attribute__((noinline)) Block product(const float* a, const float* b, int64_t depth, int64_t parts = 1,
                                                   int64_t stride = 0) {
        Vector sum[kRows][kVectors] = {};
        for (int64_t part = 0; part < parts; ++part)
            for (int64_t k = 0; k < depth; ++k, b += kPanel) {
                const float* const column = a + part * stride + k * kStep;
                const Vector b0 = load(b), b1 = load(b + kWidth);
                SSLFAST_UNROLL
                for (int64_t r = 0; r < kRows; ++r) {
                    const Vector factor = all(column[r * kRowStride]);
                    sum[r][0] += factor * b0;
                    sum[r][1] += factor * b1;
                }
            }
        Block block;
        SSLFAST_UNROLL
        for (int64_t r = 0; r < kRows; ++r)
            for (int64_t v = 0; v < kVectors; ++v) block.at[r][v] = sum[r][v];
        return block;
    }
};

}  // namespace sslfast::cpu
