// Vector helpers that the compiler turns into SIMD for each instruction set it builds for.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/inline.h"

namespace sslfast {

// SSLFAST_WIDE: the blocks and vectors of AVX-512 on any CPU, so that `make test-wide` can run them.
#if defined(__AVX512F__)
#define SSLFAST_WIDE
#endif

// As many floats as a register holds, for loops whose vectors must not be left to the compiler.
#if defined(SSLFAST_WIDE)
typedef float Part __attribute__((vector_size(64)));
#elif defined(__AVX2__)
typedef float Part __attribute__((vector_size(32)));
#else
typedef float Part __attribute__((vector_size(16)));
#endif

// Sixteen floats in one or more registers.
inline constexpr int64_t kLanes = 16, kWidth = sizeof(Part) / sizeof(float), kParts = kLanes / kWidth;
struct Lanes {
    Part part[kParts];
};

SSLFAST_INLINE void load(const float* from, Lanes& x) {
    for (int64_t p = 0; p < kParts; ++p) std::memcpy(&x.part[p], from + p * kWidth, sizeof(Part));
}
SSLFAST_INLINE void store(const Lanes& x, float* to) {
    for (int64_t p = 0; p < kParts; ++p) std::memcpy(to + p * kWidth, &x.part[p], sizeof(Part));
}
SSLFAST_INLINE void store(const Lanes& x, float* to, int64_t count) {  // the first of them
    if (count >= kLanes) return store(x, to);
    for (int64_t i = 0; i < count; ++i) to[i] = x.part[i / kWidth][i % kWidth];
}
SSLFAST_INLINE void add_product(Lanes& sum, float weight, const Lanes& x) {
    for (int64_t p = 0; p < kParts; ++p) sum.part[p] += weight * x.part[p];
}
SSLFAST_INLINE void add_product(Lanes& sum, float weight, const Lanes& x, const Lanes& y) {  // weight * (x + y)
    for (int64_t p = 0; p < kParts; ++p) sum.part[p] += weight * (x.part[p] + y.part[p]);
}
SSLFAST_INLINE void clamp(Lanes& x) {  // to [0, 1]
    for (Part& part : x.part) {
        part = part < 0.0f ? Part{} : part;
        part = part > 1.0f ? Part{} + 1.0f : part;
    }
}

inline constexpr double kLog2e = 1.44269504088896341;

}  // namespace sslfast
