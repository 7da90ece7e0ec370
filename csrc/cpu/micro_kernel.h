// The inner product of all contrastive losses: a block of accumulators that stays in registers.
#pragma once

#include <cstdint>

#include "cpu/pairs.h"
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
    // there are, `stride` apart in a and one behind the other in b; of words that are floats or, `kPaired`, two bfloat16.
    // Not inlined: among other code the compiler would not keep all accumulators in registers.
    template <int64_t kRowStride, int64_t kStep, bool kPaired>
    static __attribute__((noinline)) Block product(const float* a, const float* b, int64_t depth, int64_t parts,
                                                   int64_t stride) {
        Vector sum[kRows][kVectors] = {};
        for (int64_t part = 0; part < parts; ++part, b += depth * kPanel)
            accumulate<kRowStride, kStep, kPaired>(a + part * stride, b, depth, sum);
        Block block;
        SSLFAST_UNROLL
        for (int64_t r = 0; r < kRows; ++r)
            for (int64_t v = 0; v < kVectors; ++v) block.at[r][v] = sum[r][v];
        return block;
    }

    // The same of one part, added to what is in `to`, rows of kPanel, unless it is the `first`.
    template <int64_t kRowStride, int64_t kStep, bool kPaired>
    static __attribute__((noinline)) void sum_to(const float* a, const float* b, int64_t depth, float* to, bool first) {
        Vector sum[kRows][kVectors] = {};
        accumulate<kRowStride, kStep, kPaired>(a, b, depth, sum);
        SSLFAST_UNROLL
        for (int64_t r = 0; r < kRows; ++r)
            for (int64_t v = 0; v < kVectors; ++v) {
                float* const place = to + r * kPanel + v * kWidth;
                cpu::store(first ? sum[r][v] : sum[r][v] + load(place), place);
            }
    }

private:
    template <int64_t kRowStride, int64_t kStep, bool kPaired>
    SSLFAST_INLINE static void accumulate(const float* a, const float* b, int64_t depth,
                                          Vector (&sum)[kRows][kVectors]) {
        for (int64_t k = 0; k < depth; ++k, a += kStep, b += kPanel) {
            const Vector b0 = load(b), b1 = load(b + kWidth);
            SSLFAST_UNROLL
            for (int64_t r = 0; r < kRows; ++r) {
                const Vector factor = all(a + r * kRowStride);
                add_product<kPaired>(sum[r][0], factor, b0);
                add_product<kPaired>(sum[r][1], factor, b1);
            }
        }
    }
};

}  // namespace sslfast::cpu
