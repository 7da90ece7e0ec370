// The random resized crop of ops.augment: rows first, they are contiguous, then columns, sixteen at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/simd.h"

namespace sslfast::cpu {

// Keys' cubic convolution kernel, a = -1/2, or the triangle.
SSLFAST_INLINE float filter(float x, bool bicubic) {
    const float triangle = std::max(0.0f, 1 - x);
    const float near = (1.5f * x - 2.5f) * x * x + 1, far = ((-0.5f * x + 2.5f) * x - 4) * x + 2;
    const float cubic = x < 1 ? near : x < 2 ? far : 0;
    return bicubic ? cubic : triangle;
}

// The weights that resize the source pixels [start, end) to `target` pixels, flipped or not. For each block of sixteen of
// them they are a dense matrix (source pixels from[block] on, 16): most are zero, but none must be gathered.
struct Resampling {
    int64_t target, start, end;
    std::vector<int32_t> first, last;  // (target) the source pixels [first, last) that a pixel needs
    std::vector<int32_t> from;         // (blocks)
    std::vector<int64_t> at;           // (blocks + 1) where the weights of a block begin
    std::vector<float> weights;

    // Source pixels of a block.
    int64_t count(int64_t block) const { return (at[block + 1] - at[block]) / kLanes; }

    // The weights of pixel i for source pixels first[i] on, one every sixteen floats.
    const float* of_pixel(int64_t i) const {
        const int64_t block = i / kLanes;
        return weights.data() + at[block] + (first[i] - from[block]) * kLanes + i % kLanes;
    }

    // A box of `length` pixels from `origin` on, cut to the source's `own` pixels; the weights of a pixel sum up to `sum`.
    // With antialiasing the filter is widened where it shrinks. It is cut and renormalised at the border of the box.
    SSLFAST_INLINE void prepare(int64_t origin, int64_t length, int64_t own, bool flip, int64_t pixels, bool bicubic,
                                bool antialias, float sum) {
        target = pixels;
        end = std::clamp<int64_t>(origin + length, 1, own);
        start = std::min(std::max<int64_t>(origin, 0), end - 1);
        const double scale = double(end - start) / double(target), widened = antialias ? std::max(scale, 1.0) : 1.0;
        const double support = (bicubic ? 2 : 1) * widened;
        const float narrow = float(1 / widened);
        const int64_t blocks = (target + kLanes - 1) / kLanes;
        first.resize(blocks * kLanes), last.resize(blocks * kLanes), from.resize(blocks), at.resize(blocks + 1);
        at[0] = 0;
        for (int64_t block = 0; block < blocks; ++block) {
            float offset[kLanes];
            double center[kLanes];
            for (int64_t lane = 0; lane < kLanes; ++lane) {
                const int64_t i = std::min(block * kLanes + lane, target - 1);
                center[lane] = double(start) + (double(flip ? target - 1 - i : i) + 0.5) * scale;
                first[block * kLanes + lane] = int32_t(std::max(start, int64_t(std::floor(center[lane] - support + 0.5))));
                last[block * kLanes + lane] = int32_t(std::min(end, int64_t(std::ceil(center[lane] + support - 0.5))));
            }
            const int64_t lowest = flip ? block * kLanes + kLanes - 1 : block * kLanes;
            const int64_t highest = flip ? block * kLanes : block * kLanes + kLanes - 1;
            from[block] = first[lowest];
            const int64_t rows = last[highest] - from[block];
            at[block + 1] = at[block] + rows * kLanes;
            weights.resize(at[block + 1]);
            for (int64_t lane = 0; lane < kLanes; ++lane) offset[lane] = float(double(from[block]) + 0.5 - center[lane]);
            float* weight = weights.data() + at[block];
            float total[kLanes] = {};
            for (int64_t k = 0; k < rows; ++k) {
#pragma omp simd
                for (int64_t lane = 0; lane < kLanes; ++lane) {
                    const float w = filter(std::fabs(offset[lane] + float(k)) * narrow, bicubic);
                    weight[k * kLanes + lane] = w;
                    total[lane] += w;
                }
            }
            for (int64_t lane = 0; lane < kLanes; ++lane) total[lane] = sum / total[lane];
            for (int64_t k = 0; k < rows; ++k) {
#pragma omp simd
                for (int64_t lane = 0; lane < kLanes; ++lane) weight[k * kLanes + lane] *= total[lane];
            }
        }
    }
};

// One row of the view before its columns are resized: source columns [left, right) of row y -> row[0 .. right - left).
SSLFAST_INLINE void blend_rows(const uint8_t* plane, int64_t width, const Resampling& rows, int64_t y, int64_t left,
                               int64_t right, float* row) {
    const int64_t columns = right - left, taps = rows.last[y] - rows.first[y];
    const uint8_t* source = plane + rows.first[y] * width + left;
    const float* weight = rows.of_pixel(y);
    if (columns < kLanes) {  // of a source that is narrower than that
        for (int64_t x = 0; x < columns; ++x) {
            row[x] = 0;
            for (int64_t t = 0; t < taps; ++t) row[x] += weight[t * kLanes] * float(source[t * width + x]);
        }
        return;
    }
    for (int64_t block = 0; block < columns; block += kLanes) {
        const int64_t x = std::min(block, columns - kLanes);  // the last one overlaps
        Lanes sum = {}, pixels;
        for (int64_t t = 0; t < taps; ++t) {
            load(source + t * width + x, pixels);
            sum += weight[t * kLanes] * pixels;
        }
        store(sum, row + x);
    }
}

// `kRows` rows at once, which share the weights; the source columns of `row` begin at `left`.
template <int kRows>
SSLFAST_INLINE void resize_columns(const float* row, int64_t stride, const Resampling& columns, int64_t left,
                                   bool overshoots, float* out) {
    const int64_t blocks = int64_t(columns.from.size());
    for (int64_t block = 0; block < blocks; ++block) {
        const float* weight = columns.weights.data() + columns.at[block];
        const float* source = row + columns.from[block] - left;
        Lanes sum[kRows] = {}, weights;
        for (int64_t k = 0; k < columns.count(block); ++k) {
            load(weight + k * kLanes, weights);
            for (int r = 0; r < kRows; ++r) sum[r] += source[r * stride + k] * weights;
        }
        const int64_t x = block * kLanes, valid = std::min(kLanes, columns.target - x);
        for (int r = 0; r < kRows; ++r) {
            if (overshoots) clamp(sum[r]);
            store(sum[r], out + r * columns.target + x, valid);
        }
    }
}

// Room for the crop of a view; used again for the next one.
struct Crop {
    Resampling rows, columns;
    std::vector<float> row;

    // uint8 (channels, height, width) -> view (channels, rows, columns) in [0, 1].
    SSLFAST_INLINE void resize(const uint8_t* image, int64_t channels, int64_t height, int64_t width, bool bicubic,
                               float* view) {
        constexpr int kRows = 4;
        // At least sixteen columns, where there are as many.
        const int64_t right = std::max(columns.end, std::min(columns.start + kLanes, width));
        const int64_t left = std::min(columns.start, std::max<int64_t>(right - kLanes, 0));
        const int64_t stride = right - left;
        row.resize(kRows * stride);
        for (int64_t c = 0; c < channels; ++c) {
            const uint8_t* plane = image + c * height * width;
            for (int64_t y = 0; y < rows.target; y += kRows) {
                const int64_t together = std::min<int64_t>(kRows, rows.target - y);
                for (int64_t r = 0; r < together; ++r) blend_rows(plane, width, rows, y + r, left, right, &row[r * stride]);
                float* out = view + (c * rows.target + y) * columns.target;
                if (together == kRows) {
                    resize_columns<kRows>(row.data(), stride, columns, left, bicubic, out);
                } else {
                    for (int64_t r = 0; r < together; ++r)
                        resize_columns<1>(&row[r * stride], stride, columns, left, bicubic, out + r * columns.target);
                }
            }
        }
    }
};

}  // namespace sslfast::cpu
