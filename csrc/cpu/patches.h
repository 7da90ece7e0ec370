// Square patches of images, read as rows of floats in (row, column, channel) order and normalised on the way.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/rows.h"

namespace sslfast::cpu {

struct Images {
    const void* data;
    int type;  // 0 float32, 1 bfloat16, 2 float16, 3 uint8
    int64_t stride_b, stride_c, stride_h, stride_w;  // in elements
    int64_t batch, channels, height, width, patch_size;
    std::vector<float> scale, offset;  // x * scale + offset, one of each for the elements of a line of a patch

    int64_t patches() const { return (height / patch_size) * (width / patch_size); }
    int64_t elements() const { return patch_size * patch_size * channels; }
};

// Patch l of image b, elements() floats.
void read_patch(const Images& images, int64_t b, int64_t l, float* out);

// Asks for the memory of patch l of image b: its lines lie too far apart for the processor to guess.
void prefetch_patch(const Images& images, int64_t b, int64_t l);

// Asks for a part of the row of patches below that of patch l: called for all patches of a row, for the whole of it.
void prefetch_below(const Images& images, int64_t b, int64_t l);

// A row of floats, rounded to `type`.
void store_row(const float* row, int64_t size, int type, void* out);

}  // namespace sslfast::cpu
