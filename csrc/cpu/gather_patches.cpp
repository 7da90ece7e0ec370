#include "cpu/gather_patches.h"

#include "common/simd.h"

namespace sslfast::cpu {
namespace {

// One line of a patch and of one channel; a null grad is zero.
void store_line(const float* grad, int64_t channels, int64_t p, float scale, int type, void* out) {
    with_type(type, [&](auto zero) {
        auto* to = static_cast<decltype(zero)*>(out);
        for (int64_t x = 0; x < p; ++x) store(to + x, grad ? grad[x * channels] * scale : 0.0f);
    });
}

}  // namespace

void gather_patches(const Images& images, const int64_t* keep, int64_t kept, int type, void* out) {
    const int64_t elements = images.elements(), bytes = elements * kSizes[type];
#pragma omp parallel if (images.batch * kept * bytes > kSerialBytes)
    {
        std::vector<float> patch(elements);
#pragma omp for schedule(dynamic, rows_at_once(bytes))
        for (int64_t row = 0; row < images.batch * kept; ++row) {
            char* to = static_cast<char*>(out) + row * bytes;
            if (row + 1 < images.batch * kept) prefetch_patch(images, (row + 1) / kept, keep[row + 1]);
            if (type == kFloat32) {
                read_patch(images, row / kept, keep[row], reinterpret_cast<float*>(to));
            } else {
                read_patch(images, row / kept, keep[row], patch.data());
                store_row(patch.data(), elements, type, to);
            }
        }
    }
}

bool gather_patches_backward(const float* grad, const Images& images, const int64_t* keep, int64_t kept, int type,
                             void* dimages) {
    const int64_t p = images.patch_size, channels = images.channels, across = images.width / p;
    const int64_t size = kSizes[type], lines = images.batch * channels * images.height;
    const std::vector<int32_t> source = inverse_of(keep, images.batch, kept, images.patches());
    if (source.empty()) return false;
#pragma omp parallel for schedule(dynamic, rows_at_once(images.width * size)) \
    if (lines * images.width * size > kSerialBytes)
    for (int64_t row = 0; row < lines; ++row) {
        const int64_t b = row / (channels * images.height), c = row / images.height % channels, y = row % images.height;
        for (int64_t j = 0; j < across; ++j) {
            const int64_t k = source[b * images.patches() + y / p * across + j];
            const float* from = k < 0 ? nullptr : grad + (b * kept + k) * images.elements() + y % p * p * channels + c;
            store_line(from, channels, p, images.scale[c], type,
                       static_cast<char*>(dimages) + (row * images.width + j * p) * size);
        }
    }
    return true;
}

}  // namespace sslfast::cpu
