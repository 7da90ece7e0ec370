// Pairs of bfloat16, whose two products and their sum some CPUs compute at once.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include "common/half.h"
#include "cpu/vector.h"

namespace sslfast::cpu {

// Whether this CPU does. SSLFAST_PAIRED: it is made of other instructions, so that `make test-wide` can run the kernels for
// it anywhere.
#if defined(SSLFAST_WIDE) && (defined(__AVX512BF16__) || defined(SSLFAST_PAIRED))
inline constexpr bool kPairs = true;
#else
inline constexpr bool kPairs = false;
#endif

typedef uint16_t Pairs __attribute__((vector_size(kWidth * 4)));  // a pair in each lane of a Vector

// Two vectors, one after the other, rounded to bfloat16.
SSLFAST_INLINE Pairs rounded(const Vector& first, const Vector& second) {
    Pairs both;
#if defined(__AVX512BF16__)
    __m512 x, y;
    std::memcpy(&x, &first, sizeof x), std::memcpy(&y, &second, sizeof y);
    const __m512bh result = _mm512_cvtne2ps_pbh(y, x);
    std::memcpy(&both, &result, sizeof both);
#else
    for (int64_t lane = 0; lane < kWidth; ++lane) {
        both[lane] = to_bf16(first[lane]).bits;
        both[kWidth + lane] = to_bf16(second[lane]).bits;
    }
#endif
    return both;
}

namespace zip {

template <int... kLane>
SSLFAST_INLINE Pairs lanes(const Pairs& x, const Pairs& y, int64_t half, std::integer_sequence<int, kLane...>) {
    constexpr int kAll = sizeof...(kLane);
    return half ? __builtin_shufflevector(x, y, (kLane % 2 * kAll + kAll / 2 + kLane / 2)...)
                : __builtin_shufflevector(x, y, (kLane % 2 * kAll + kLane / 2)...);
}

}  // namespace zip

// Pairs of an element of x and the one below it, in y: of the first half of them, or of the second.
SSLFAST_INLINE Pairs zipped(const Pairs& x, const Pairs& y, int64_t half) {
    return zip::lanes(x, y, half, std::make_integer_sequence<int, 2 * kWidth>());
}

// sum += a * b; of `kPaired` vectors, which have two bfloat16 in a lane, both products.
template <bool kPaired>
SSLFAST_INLINE void add_product(Vector& sum, const Vector& a, const Vector& b) {
    if constexpr (!kPaired) {
        sum += a * b;
    } else {
#if defined(__AVX512BF16__)
        __m512 total;
        __m512bh x, y;
        std::memcpy(&total, &sum, sizeof total), std::memcpy(&x, &a, sizeof x), std::memcpy(&y, &b, sizeof y);
        total = _mm512_dpbf16_ps(total, x, y);
        std::memcpy(&sum, &total, sizeof sum);
#else
        const Bits x = reinterpret_cast<Bits>(a), y = reinterpret_cast<Bits>(b);
        sum += reinterpret_cast<Vector>(x & 0xFFFF0000u) * reinterpret_cast<Vector>(y & 0xFFFF0000u);
        sum += reinterpret_cast<Vector>(x << 16) * reinterpret_cast<Vector>(y << 16);
#endif
    }
}

}  // namespace sslfast::cpu
