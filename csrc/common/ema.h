// What the CPU and the CUDA kernel of ema_update_ share: the table of tensors, and the arithmetic of one element.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "common/half.h"
#include "common/philox.h"

namespace sslfast {

// One row of the table that Python hands over.
struct EmaPair {
    void* target;
    const void* source;
    int64_t size;   // elements
    int64_t types;  // 3 * type of target + type of source; 0 float32, 1 bfloat16, 2 float16
};

// f(Target{}, Source{}) for the types of a pair.
template <typename F>
SSLFAST_INLINE void with_types(int64_t types, F f) {
    with_type(types / 3, [&](auto target) {
        with_type(types % 3, [&](auto source) { f(target, source); });
    });
}

// momentum * target + (1 - momentum) * source from the nearer end, so that momentum 0 and 1 and a source that equals its
// target are exact; halved, so that no difference overflows. From an infinite end the way is the other end itself, which
// leaves infinity what it is. A momentum outside [0, 1] gives NaN.
struct Blend {
    uint32_t from_source;  // 0 or 1, as wide as a float: with a bool, loops around it do not become SIMD
    float twice;  // 2 * the weight of the other end

    SSLFAST_INLINE explicit Blend(double momentum) {
        const double weight = momentum >= 0 && momentum <= 1 ? 1 - momentum : NAN;
        from_source = weight > 0.5;
        twice = 2 * float(from_source ? momentum : weight);
    }

    SSLFAST_INLINE float operator()(float target, float source) const {
        const float near = from_source ? source : target, far = from_source ? target : source;
        return fmaf(twice, fabsf(near) <= FLT_MAX ? fmaf(0.5f, far, -0.5f * near) : far, near);
    }
};

// 16 random bits for each of the eight elements 8 * group.. of a tensor, two to a word, the lower half first.
SSLFAST_INLINE Words rounding_noise(uint64_t group, uint32_t tensor, uint64_t step) {
    return philox({{uint32_t(group), uint32_t(group >> 32), tensor, 0}}, step);
}

SSLFAST_INLINE uint32_t noise_of(const Words& noise, int element) {
    const uint32_t low = element & 2 ? noise.x[1] : noise.x[0], high = element & 2 ? noise.x[3] : noise.x[2];
    return ((element & 4 ? high : low) >> (element & 1 ? 16 : 0)) & 0xFFFF;
}

}  // namespace sslfast
