// Vector helpers that the compiler turns into SIMD for each instruction set it builds for.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/inline.h"

// A function so marked is compiled for AVX-512, AVX2 and the baseline, and the loader picks by the CPU it runs on.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define SSLFAST_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SSLFAST_MULTIVERSION
#endif

namespace sslfast {

// Sixteen floats in registers, for loops whose vectors must not be left to the compiler.
typedef float Lanes __attribute__((vector_size(64)));
inline constexpr int64_t kLanes = 16;

SSLFAST_INLINE void load(const float* from, Lanes& x) { std::memcpy(&x, from, sizeof x); }
SSLFAST_INLINE void store(const Lanes& x, float* to) { std::memcpy(to, &x, sizeof x); }
SSLFAST_INLINE void store(const Lanes& x, float* to, int64_t count) {  // the first of them
    if (count >= kLanes) return store(x, to);
    for (int64_t i = 0; i < count; ++i) to[i] = x[i];
}
SSLFAST_INLINE void clamp(Lanes& x) {  // to [0, 1]
    x = x < 0.0f ? Lanes{} : x;
    x = x > 1.0f ? Lanes{} + 1.0f : x;
}

inline constexpr double kLog2e = 1.44269504088896341;

// 2^x for x <= 127 within 1 ulp; zero below -126, NaN for NaN.
__attribute__((always_inline)) inline float exp2_fast(float exponent) {
    const float x = exponent < -126.0f ? -126.0f : exponent;
    const float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds x to an integer in the low bits
    const float shifted = x + shifter;
    const float f = x - (shifted - shifter);  // in [-1/2, 1/2]
    // Minimax polynomial of 2^f on [-1/2, 1/2], relative error 2e-9 before rounding.
    float p = 1.535336344e-4f;
    p = p * f + 1.339887444e-3f;
    p = p * f + 9.618437351e-3f;
    p = p * f + 5.550332471e-2f;
    p = p * f + 2.402264791e-1f;
    p = p * f + 6.931472029e-1f;
    p = p * f + 1.0f;
    uint32_t bits, power;
    std::memcpy(&bits, &p, 4);
    std::memcpy(&power, &shifted, 4);
    bits += power << 23;
    std::memcpy(&p, &bits, 4);
    return exponent < -126.0f ? 0.0f : p;
}

}  // namespace sslfast
