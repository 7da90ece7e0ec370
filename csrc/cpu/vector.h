// Floats in one register of the instruction set that this file is compiled for.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "common/simd.h"

namespace sslfast::cpu {

#if defined(SSLFAST_WIDE) || defined(__aarch64__)
inline constexpr int64_t kRegisters = 32;
#else
inline constexpr int64_t kRegisters = 16;
#endif

// Whether a product and a sum are rounded once, together.
#if defined(__FMA__) || defined(__aarch64__)
inline constexpr bool kFused = true;
#else
inline constexpr bool kFused = false;
#endif

using sslfast::kWidth;
using Vector = sslfast::Part;
typedef int32_t Integers __attribute__((vector_size(kWidth * 4)));  // as wide; a comparison of Vectors gives 0 or -1
typedef uint32_t Bits __attribute__((vector_size(kWidth * 4)));     // with sums that may wrap around

SSLFAST_INLINE Vector load(const float* from) {
    Vector x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

SSLFAST_INLINE void store(const Vector& x, float* to) { std::memcpy(to, &x, sizeof x); }

SSLFAST_INLINE Vector all(float x) { return x - Vector{}; }  // a sum would turn -0 into 0

SSLFAST_INLINE Vector all(const float* word) {  // whatever its bits mean
    uint32_t bits;
    std::memcpy(&bits, word, sizeof bits);
    return reinterpret_cast<Vector>(Bits{} + bits);
}

// a * b + c, rounded once. Of a sum of two products the compiler chooses which one is not rounded, here and there otherwise.
SSLFAST_INLINE Vector fused(const Vector& a, const Vector& b, const Vector& c) {
    Vector x;
    for (int64_t lane = 0; lane < kWidth; ++lane) x[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
    return x;
}

SSLFAST_INLINE float sum(const Vector& x) {
    float total = 0;
    for (int64_t lane = 0; lane < kWidth; ++lane) total += x[lane];
    return total;
}

SSLFAST_INLINE int32_t sum(const Integers& x) {
    int32_t total = 0;
    for (int64_t lane = 0; lane < kWidth; ++lane) total += x[lane];
    return total;
}

// y where one of them is NaN.
SSLFAST_INLINE Vector maximum(const Vector& x, const Vector& y) { return x > y ? x : y; }

SSLFAST_INLINE float largest(const Vector& x) {
    float most = x[0];
    for (int64_t lane = 1; lane < kWidth; ++lane) most = x[lane] > most ? x[lane] : most;
    return most;
}

namespace transposition {

// Exchanges the upper part of each 2 * kStep lanes of x with the lower part of y's.
template <int kStep, int... kLane>
SSLFAST_INLINE void exchange(Vector& x, Vector& y, std::integer_sequence<int, kLane...>) {
    const Vector a = x, b = y;
    x = __builtin_shufflevector(a, b, (kLane & kStep ? int(kWidth) + kLane - kStep : kLane)...);
    y = __builtin_shufflevector(a, b, (kLane & kStep ? int(kWidth) + kLane : kLane + kStep)...);
}

template <int kStep>
SSLFAST_INLINE void steps(Vector* rows) {
    for (int64_t r = 0; r < kWidth; ++r)
        if (!(r & kStep)) exchange<kStep>(rows[r], rows[r + kStep], std::make_integer_sequence<int, kWidth>());
    if constexpr (kStep > 1) steps<kStep / 2>(rows);
}

}  // namespace transposition

// kWidth rows become kWidth columns.
SSLFAST_INLINE void transpose(Vector* rows) { transposition::steps<kWidth / 2>(rows); }

// 2^x for x <= 127 within 1 ulp above -126; zero below -127, NaN for NaN.
SSLFAST_INLINE Vector exp2(const Vector& exponent) {
    const Vector x = exponent < -127.0f ? all(-127.0f) : exponent;
    const Vector shifted = x + 12582912.0f;  // 1.5 * 2^23: adding it rounds x to an integer in the low bits
    const Vector f = x - (shifted - 12582912.0f);  // in [-1/2, 1/2]
    // Minimax polynomial of 2^f, relative error 2e-9 before rounding.
    Vector p = all(1.535336344e-4f);
    p = p * f + 1.339887444e-3f;
    p = p * f + 9.618437351e-3f;
    p = p * f + 5.550332471e-2f;
    p = p * f + 2.402264791e-1f;
    p = p * f + 6.931472029e-1f;
    p = p * f + 1.0f;
    const Bits power = (reinterpret_cast<Bits>(shifted) << 23) + (127u << 23);  // zero for -127
    return p * reinterpret_cast<Vector>(power);  // a product, so that NaN stays NaN
}

}  // namespace sslfast::cpu
