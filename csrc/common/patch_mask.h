// What the CPU and the CUDA kernel of random_patch_mask share: the keys by which patches are sorted; ties go by index.
#pragma once

#include <cstdint>

#include "common/half.h"
#include "common/philox.h"

namespace sslfast {

inline constexpr int64_t kMaxPatches = 16384;  // of an image: what one block of a GPU sorts in its shared memory

// The keys of patches 4 * group .. 4 * group + 3 of an image.
SSLFAST_INLINE Words patch_keys(uint32_t group, uint32_t image, uint64_t seed) {
    return philox({{group, image, 0, 0}}, seed);
}

// Ascends with the noise; -0 and 0 are equal, and so are all NaN, which come last.
SSLFAST_INLINE uint32_t patch_key(float noise) {
    const uint32_t bits = bits_of(noise), magnitude = bits & 0x7FFFFFFF;
    if (magnitude > kInfinityBits) return 0xFFFFFFFF;
    return 0x80000000 + (bits == magnitude ? magnitude : 0u - magnitude);
}

}  // namespace sslfast
