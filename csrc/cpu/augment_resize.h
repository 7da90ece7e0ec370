// The random resized crop of ops.augment: rows first, they are contiguous, then columns, sixteen at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "common/simd.h"

namespace sslfast::cpu {

SSLFAST_INLINE float clamp01(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

// A pixel of an image; of floats what is outside [0, 1] is cut.
template <typename Pixel>
SSLFAST_INLINE float pixel_of(Pixel x) {
    return std::is_floating_point_v<Pixel> ? clamp01(float(x)) : float(x);
}

// Keys' cubic convolution kernel, a = -1/2, or the triangle.
SSLFAST_INLINE float filter(float x, bool bicubic) {
    const float triangle = std::max(0.0f, 1 - x);
    const float near = (1.5f * x - 2.5f) * x * x + 1, far = ((-0.5f * x + 2.5f) * x - 4) * x + 2;
    const float cubic = x < 1 ? near : x < 2 ? far : 0;
    return bicubic ? cubic : triangle;
}

// The weights that resize the source pixels [start, end) to `target` pixels. For each block of sixteen of these they are
// a dense matrix (source pixels from[block] on, 16): most are zero, but none must be gathered.
struct Resampling {
    int64_t target, start, end;
    std::vector<int32_t> first, last;  // (16 blocks) the source pixels [first, last) that a pixel needs
    std::vector<int32_t> from;         // (blocks)
    std::vector<int64_t> at;           // (blocks + 1) where the weights of a block begin
    std::vector<float> weights;

    int64_t blocks() const { return int64_t(from.size()); }

    // Source pixels of a block.
    int64_t count(int64_t block) const { return (at[block + 1] - at[block]) / kLanes; }

    // The weights of pixel i for source pixels first[i] on, one every sixteen floats.
    const float* of_pixel(int64_t i) const {
        const int64_t block = i / kLanes;
        return weights.data() + at[block] + (first[i] - from[block]) * kLanes + i % kLanes;
    }

    // A box of `length` pixels from `origin` on, cut to the source's `own` pixels; the weights of a pixel sum to `unit`.
    // With antialiasing the filter is widened where it shrinks. It is cut and renormalised at the border of the box.
    SSLFAST_INLINE void prepare(int64_t origin, int64_t length, int64_t own, bool flip, int64_t pixels, bool bicubic,
                                bool antialias, float unit) {
        target = pixels;
        end = std::clamp<int64_t>(origin + length, 1, own);
        start = std::min(std::max<int64_t>(origin, 0), end - 1);
        const double scale = double(end - start) / double(target), widened = antialias ? std::max(scale, 1.0) : 1.0;
        const double support = (bicubic ? 2 : 1) * widened;
        const int64_t padded = (target + kLanes - 1) / kLanes * kLanes;
        first.resize(padded), last.resize(padded), from.resize(padded / kLanes), at.resize(padded / kLanes + 1);
        for (int64_t block = 0; block < blocks(); ++block) {
            const int64_t i0 = block * kLanes;
            double center[kLanes];
            for (int64_t lane = 0; lane < kLanes; ++lane) {
                const int64_t i = std::min(i0 + lane, target - 1);
                center[lane] = double(start) + (double(flip ? target - 1 - i : i) + 0.5) * scale;
                first[i0 + lane] = int32_t(std::max(start, int64_t(std::floor(center[lane] - support + 0.5))));
                last[i0 + lane] = int32_t(std::min(end, int64_t(std::ceil(center[lane] + support - 0.5))));
            }
            from[block] = first[flip ? i0 + kLanes - 1 : i0];
            const int64_t count = last[flip ? i0 : i0 + kLanes - 1] - from[block];
            at[block + 1] = at[block] + count * kLanes;
            weights.resize(at[block + 1]);
            fill(weights.data() + at[block], count, from[block], center, float(1 / widened), bicubic, unit);
        }
    }

    // The matrix (count, 16) of a block.
    static SSLFAST_INLINE void fill(float* weight, int64_t count, int64_t from, const double* center, float narrow,
                                    bool bicubic, float unit) {
        float whole[kLanes], part[kLanes], sum[kLanes] = {};  // of the distance to pixel `from`, exact where it is small
        for (int64_t lane = 0; lane < kLanes; ++lane) {
            const double distance = double(from) + 0.5 - center[lane];
            whole[lane] = float(std::floor(distance));
            part[lane] = float(distance - std::floor(distance));
        }
        for (int64_t k = 0; k < count; ++k) {
#pragma omp simd
            for (int64_t lane = 0; lane < kLanes; ++lane) {
                const float w = filter(std::fabs(whole[lane] + float(k) + part[lane]) * narrow, bicubic);
                weight[k * kLanes + lane] = w;
                sum[lane] += w;
            }
        }
        for (int64_t lane = 0; lane < kLanes; ++lane) sum[lane] = unit / sum[lane];
        for (int64_t k = 0; k < count; ++k) {
#pragma omp simd
            for (int64_t lane = 0; lane < kLanes; ++lane) weight[k * kLanes + lane] *= sum[lane];
        }
    }
};

// Row y of the view before its columns are resized; `source` holds the rows of its block, `stride` columns each.
SSLFAST_INLINE void blend_rows(const float* source, int64_t stride, const Resampling& rows, int64_t y, float* row) {
    const int64_t taps = rows.last[y] - rows.first[y];
    const float* weight = rows.of_pixel(y);
    source += (rows.first[y] - rows.from[y / kLanes]) * stride;
    for (int64_t x = 0; x < stride; x += kLanes) {
        Lanes sum = {}, pixels;
        for (int64_t t = 0; t < taps; ++t) {
            load(source + t * stride + x, pixels);
            add_product(sum, weight[t * kLanes], pixels);
        }
        store(sum, row + x);
    }
}

// `kRows` rows at once, which share the weights.
template <int kRows>
SSLFAST_INLINE void resize_columns(const float* row, int64_t stride, const Resampling& columns, bool bicubic,
                                   float* out) {
    for (int64_t block = 0; block < columns.blocks(); ++block) {
        const float* weight = columns.weights.data() + columns.at[block];
        const float* source = row + columns.from[block] - columns.start;
        Lanes sum[kRows] = {}, weights;
        for (int64_t k = 0; k < columns.count(block); ++k) {
            load(weight + k * kLanes, weights);
            for (int r = 0; r < kRows; ++r) add_product(sum[r], source[r * stride + k], weights);
        }
        const int64_t x = block * kLanes;
        for (int r = 0; r < kRows; ++r) {
            if (bicubic) clamp(sum[r]);  // it overshoots at edges
            store(sum[r], out + r * columns.target + x, columns.target - x);
        }
    }
}

// Room for the crop of a view; used again for the next one.
struct Crop {
    Resampling rows, columns;
    std::vector<float> pixels, row;

    // (channels, height, width) -> view (channels, rows, columns) in [0, 1].
    template <typename Pixel>
    SSLFAST_INLINE void resize(const Pixel* image, int64_t channels, int64_t height, int64_t width, bool bicubic,
                               float* view) {
        constexpr int64_t kRows = 4;
        const int64_t left = columns.start, across = columns.end - left;
        const int64_t stride = (across + kLanes - 1) / kLanes * kLanes;
        row.resize(kRows * stride);
        for (int64_t c = 0; c < channels; ++c) {
            for (int64_t block = 0; block < rows.blocks(); ++block) {
                const int64_t count = rows.count(block), end = std::min((block + 1) * kLanes, rows.target);
                const Pixel* source = image + (c * height + rows.from[block]) * width + left;
                pixels.resize(std::max(int64_t(pixels.size()), count * stride));
                for (int64_t k = 0; k < count; ++k) {
#pragma omp simd
                    for (int64_t x = 0; x < across; ++x) pixels[k * stride + x] = pixel_of(source[k * width + x]);
                }
                for (int64_t y = block * kLanes; y < end; y += kRows) {
                    const int64_t together = std::min(kRows, end - y);
                    float* out = view + (c * rows.target + y) * columns.target;
                    for (int64_t r = 0; r < together; ++r)
                        blend_rows(pixels.data(), stride, rows, y + r, &row[r * stride]);
                    if (together == kRows) {
                        resize_columns<kRows>(row.data(), stride, columns, bicubic, out);
                        continue;
                    }
                    for (int64_t r = 0; r < together; ++r)
                        resize_columns<1>(&row[r * stride], stride, columns, bicubic, out + r * columns.target);
                }
            }
        }
    }
};

}  // namespace sslfast::cpu
