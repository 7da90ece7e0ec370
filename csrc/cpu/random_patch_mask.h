// Random choice of patches: the K with the least noise, by sorting the noise of every image.
#pragma once

#include <cstdint>

namespace sslfast::cpu {

// keep (batch, kept) int64, the patches in rising order of noise, ties by index; restore (batch, patches) int64, the
// place of each patch in that order; mask (batch, patches) of bytes, 1 from place `kept` on.
// The noise (batch, patches) is a word of Philox for every patch, keyed by the seed...
void random_patch_mask_from_seed(uint64_t seed, int64_t batch, int64_t patches, int64_t kept, int64_t* keep,
                                 int64_t* restore, uint8_t* mask);
// ...or given; -0 equals 0, and NaN comes last.
void random_patch_mask_from_noise(const float* noise, int64_t batch, int64_t patches, int64_t kept, int64_t* keep,
                                  int64_t* restore, uint8_t* mask);

}  // namespace sslfast::cpu
