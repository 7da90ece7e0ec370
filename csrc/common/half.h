// The types of elements: bfloat16 and float16 as their bits, their conversion in arithmetic that SIMD units and GPUs share,
// and the switch from the number of a type, which Python hands over, to the type.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/inline.h"

namespace sslfast {

struct Bf16 {
    uint16_t bits;
};
struct Half {
    uint16_t bits;
};

inline constexpr uint32_t kInfinityBits = 0x7F800000;    // of a float
inline constexpr uint32_t kLeastNormalHalf = 0x38800000;  // 2^-14, as the bits of a float

SSLFAST_INLINE uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

SSLFAST_INLINE float float_of(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

SSLFAST_INLINE float to_float(float x) { return x; }

SSLFAST_INLINE float to_float(const Bf16& x) { return float_of(uint32_t(x.bits) << 16); }

SSLFAST_INLINE float to_float(const Half& x) {
    const uint32_t bits = x.bits, sign = (bits & 0x8000) << 16, magnitude = bits & 0x7FFF;
    // The exponent is moved by 224 at once, which makes infinity and NaN of 31, and brought back by 2^-112.
    const float normal = float_of((magnitude << 13) + (224u << 23)) * 0x1p-112f;
    const float subnormal = float_of(magnitude | (126u << 23)) - 0.5f;
    return float_of(sign | bits_of(magnitude < 0x400 ? subnormal : normal));
}

// To nearest, ties to even.
SSLFAST_INLINE Half to_half(float x) {
    const uint32_t bits = bits_of(x), magnitude = bits & 0x7FFFFFFF;
    // Adding 2^13 ulp of the result rounds off the surplus digits; too large a magnitude has become infinite before.
    const float scaled = std::fabs(x) * 0x1p112f * 0x1p-110f;
    const uint32_t exponent = magnitude < kLeastNormalHalf ? kLeastNormalHalf : magnitude & kInfinityBits;
    const uint32_t sum = bits_of(scaled + float_of(exponent + 0x07800000));
    const uint32_t rounded = ((sum >> 13) & 0x7C00) + (sum & 0xFFF);
    return {uint16_t(((bits >> 16) & 0x8000) | (magnitude > kInfinityBits ? 0x7E00 : rounded))};
}

// Up or down with the probabilities that make the expectation x; `noise` is uniform in [0, 2^16). The bits of float16 are
// found with 13 more below them, which are cut off last: so SIMD need not narrow before.
SSLFAST_INLINE Half to_half(float x, uint32_t noise) {
    const uint32_t bits = bits_of(x), magnitude = bits & 0x7FFFFFFF, digits = noise >> 3, infinity = 0x7C00 << 13;
    const float small = magnitude < kLeastNormalHalf ? float_of(magnitude) : 0x1p-14f;
    const uint32_t subnormal = uint32_t(int32_t(small * 0x1p37f + float(int32_t(digits))));  // in units of 2^-37
    const uint32_t normal = magnitude + digits - (112u << 23);
    const uint32_t finite = magnitude < kLeastNormalHalf ? subnormal : normal < infinity ? normal : infinity;
    return {uint16_t(((bits >> 16) & 0x8000) | (magnitude > kInfinityBits ? 0x7E00u << 13 : finite) >> 13)};
}

SSLFAST_INLINE Bf16 to_bf16(float x, uint32_t noise) {
    return {uint16_t(x == x ? (bits_of(x) + noise) >> 16 : 0x7FC0)};
}

// To nearest, ties to even.
SSLFAST_INLINE Bf16 to_bf16(float x) { return to_bf16(x, 0x7FFF + ((bits_of(x) >> 16) & 1)); }

// To nearest or, given the noise of to_half, up or down by chance.
template <typename... Noise>
SSLFAST_INLINE void store(float* to, float x, Noise...) {
    *to = x;
}
template <typename... Noise>
SSLFAST_INLINE void store(Bf16* to, float x, Noise... noise) {
    *to = to_bf16(x, noise...);
}
template <typename... Noise>
SSLFAST_INLINE void store(Half* to, float x, Noise... noise) {
    *to = to_half(x, noise...);
}

// f(T{}) for the one of Types that has this number, from 0 on.
SSLFAST_CALLS_WHAT_IT_IS_GIVEN
template <typename... Types, typename F>
SSLFAST_INLINE void with_one_of(int64_t number, const F& f) {
    int64_t next = 0;
    (void)((next++ == number && (f(Types{}), true)) || ...);
}

// f(T{}) for the type that Python calls `type`: 0 float32, 1 bfloat16, 2 float16.
SSLFAST_CALLS_WHAT_IT_IS_GIVEN
template <typename F>
SSLFAST_INLINE void with_type(int64_t type, const F& f) {
    with_one_of<float, Bf16, Half>(type, f);
}

}  // namespace sslfast
