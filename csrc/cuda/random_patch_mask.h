// Random patches to keep and to mask, one block an image: the kept are those of smallest noise, ties go by index.
#pragma once

#include "common/patch_mask.h"

namespace sslfast::cuda {

// keep (batch, kept) and restore (batch, patches) int64, mask (batch, patches) bool, all on the device and contiguous, as
// seed is, which lies there too. patches <= kMaxPatches. stream is a cudaStream_t of the current device.
void random_patch_mask_from_seed(const uint64_t* seed, int64_t batch, int64_t patches, int64_t kept, int64_t* keep,
                                 int64_t* restore, bool* mask, void* stream);

// noise of type 0 float32, 1 bfloat16 or 2 float16, with strides in elements.
void random_patch_mask_from_noise(const void* noise, int type, int64_t image_stride, int64_t patch_stride,
                                  int64_t batch, int64_t patches, int64_t kept, int64_t* keep, int64_t* restore,
                                  bool* mask, void* stream);

}  // namespace sslfast::cuda
