#include "cpu/patches.h"

#include "common/simd.h"

namespace sslfast::cpu {
namespace {

template <typename T>
SSLFAST_INLINE void read(const Images& images, int64_t b, int64_t top, int64_t left, float* out) {
    const int64_t p = images.patch_size, channels = images.channels, along = images.stride_w;
    const float *scale = images.scale.data(), *offset = images.offset.data();
    const T* corner = static_cast<const T*>(images.data) + b * images.stride_b + top * images.stride_h + left * along;
    for (int64_t y = 0; y < p; ++y, corner += images.stride_h, out += p * channels) {
        if (along == 1 && channels == 3) {  // planes of colour, interleaved by SIMD shuffles
            const T *red = corner, *green = red + images.stride_c, *blue = green + images.stride_c;
            const float s0 = scale[0], s1 = scale[1], s2 = scale[2], o0 = offset[0], o1 = offset[1], o2 = offset[2];
#pragma omp simd
            for (int64_t x = 0; x < p; ++x) {
                out[3 * x] = to_float(red[x]) * s0 + o0;
                out[3 * x + 1] = to_float(green[x]) * s1 + o1;
                out[3 * x + 2] = to_float(blue[x]) * s2 + o2;
            }
        } else if (along == channels && images.stride_c == 1) {
#pragma omp simd
            for (int64_t i = 0; i < p * channels; ++i) out[i] = to_float(corner[i]) * scale[i] + offset[i];
        } else {
            for (int64_t c = 0; c < channels; ++c)
                for (int64_t x = 0; x < p; ++x)
                    out[x * channels + c] = to_float(corner[c * images.stride_c + x * along]) * scale[c] + offset[c];
        }
    }
}

}  // namespace

void read_patch(const Images& images, int64_t b, int64_t l, float* out) {
    const int64_t across = images.width / images.patch_size;
    const int64_t top = l / across * images.patch_size, left = l % across * images.patch_size;
    with_one_of<float, Bf16, Half, uint8_t>(
        images.type, [&](auto zero) { read<decltype(zero)>(images, b, top, left, out); });
}

void prefetch_patch(const Images& images, int64_t b, int64_t l) {
    const int64_t p = images.patch_size, across = images.width / p, size = kSizes[images.type];
    const char* line = static_cast<const char*>(images.data) + size * b * images.stride_b;
    line += size * (l / across * p * images.stride_h + l % across * p * images.stride_w);
    const int64_t planes = images.stride_c == 1 ? 1 : images.channels;
    for (int64_t y = 0; y < p; ++y, line += size * images.stride_h)
        for (int64_t c = 0; c < planes; ++c) prefetch(line + size * c * images.stride_c, size * p * images.stride_w);
}

void prefetch_below(const Images& images, int64_t b, int64_t l) {
    const int64_t p = images.patch_size, across = images.width / p, size = kSizes[images.type];
    const int64_t planes = images.stride_c == 1 ? 1 : images.channels, lines = planes * p;
    const int64_t top = (l / across + 1) * p, part = l % across;
    if (top + p > images.height) return;
    const char* image = static_cast<const char*>(images.data) + size * b * images.stride_b;
    for (int64_t line = lines * part / across; line < lines * (part + 1) / across; ++line)
        prefetch(image + size * (line / p * images.stride_c + (top + line % p) * images.stride_h),
                 size * images.width * images.stride_w);
}

void store_row(const float* row, int64_t size, int type, void* out) {
    with_type(type, [&](auto zero) {
        auto* to = static_cast<decltype(zero)*>(out);
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) store(to + i, row[i]);
    });
}

}  // namespace sslfast::cpu
