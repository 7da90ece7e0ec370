// What Python hands to the contrastive losses.
#pragma once

#include <cstdint>

namespace sslfast::cpu {

// Rows and columns of a tile of cosines: a few tiles stay in the L2 cache.
inline constexpr int64_t kTile = 96;

// Rows of `dim` elements of a type: 0 float32, 1 bfloat16, 2 float16.
struct Rows {
    void* data;
    int type;
    int64_t dim;

    // Whether the products of such rows take them two elements at a time.
    bool paired() const;
    void read(int64_t i, float* row) const;  // filled up with zeros to a multiple of kPanel floats
    void write(int64_t i, const float* row) const;
};

// Cosines that the forward pass keeps for the backward pass: of the first tiles, as many as a workspace holds.
struct Kept {
    float* cosines;
    int64_t tiles;

    float* tile(int64_t index) const;  // or null
};

// Columns of rows of a type from which computing cosines again takes longer than keeping them.
int64_t kept_from(int type);

}  // namespace sslfast::cpu
