// The visible patches of images as rows, and their gradient.
#pragma once

#include "cpu/patches.h"

namespace sslfast::cpu {

// out (batch, kept, elements) of `type`: patch keep[b, k] of image b; keep is in range.
void gather_patches(const Images& images, const int64_t* keep, int64_t kept, int type, void* out);

// dimages (batch, channels, height, width) of `type`: grad (batch, kept, elements), float32 * scale in its place, else
// zero. Of `images` only the sizes and the scale are used.
bool gather_patches_backward(const float* grad, const Images& images, const int64_t* keep, int64_t kept, int type,
                             void* dimages);

}  // namespace sslfast::cpu
