#include "cpu/augment.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/half.h"
#include "common/simd.h"

namespace sslfast::cpu {
namespace {

enum Adjustment { kBrightness, kContrast, kSaturation, kHue };
constexpr float kLuma[3] = {0.2989f, 0.587f, 0.114f};  // ITU-R 601-2 as torchvision rounds it
constexpr float kNegligible = 1e-9f;                   // taps of a blur below it are left out

// A view at work: planes in [0, 1], which stay in cache, and room for what its steps need.
struct Workspace {
    std::vector<float> view, row, padded, spare;
    std::vector<int32_t> first_row, first_column;
    std::vector<float> row_weights, column_weights;
};

SSLFAST_INLINE float clamp01(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

// Keys' cubic convolution kernel, a = -1/2, or the triangle.
SSLFAST_INLINE float filter(float x, bool bicubic) {
    if (!bicubic) return x < 1 ? 1 - x : 0;
    if (x < 1) return (1.5f * x - 2.5f) * x * x + 1;
    return x < 2 ? ((-0.5f * x + 2.5f) * x - 4) * x + 2 : 0;
}

// The taps that resize `length` pixels from `start` on to `target` pixels: source pixels first[i] + t, t < the count that
// is returned, with weights[t * target + i]. Widened where it shrinks; cut and renormalised at the border of the box.
int64_t resampling(int64_t start, int64_t length, bool flip, int64_t target, int64_t source, bool bicubic,
                   std::vector<int32_t>& first, std::vector<float>& weights) {
    const int64_t end = std::clamp<int64_t>(start + length, 1, source);
    start = std::min(std::clamp<int64_t>(start, 0, source - 1), end - 1);
    const double scale = double(end - start) / double(target), widened = std::max(scale, 1.0);
    const double support = (bicubic ? 2 : 1) * widened;
    const int64_t count = std::min(2 * int64_t(std::ceil(support)) + 1, end - start);
    first.resize(target);
    weights.resize(count * target);
    for (int64_t i = 0; i < target; ++i) {
        const double center = double(start) + (double(flip ? target - 1 - i : i) + 0.5) * scale;
        const int64_t lowest = std::max(start, int64_t(std::floor(center - support + 0.5)));
        first[i] = int32_t(std::min(lowest, end - count));
        float sum = 0;
        for (int64_t t = 0; t < count; ++t) {
            const float weight = filter(float(std::fabs(double(first[i] + t) + 0.5 - center) / widened), bicubic);
            weights[t * target + i] = weight;
            sum += weight;
        }
        for (int64_t t = 0; t < count; ++t) weights[t * target + i] /= sum;
    }
    return count;
}

// Rows first: they are contiguous, and only those of the box are read.
SSLFAST_INLINE void crop_resize_flip(const uint8_t* image, const ViewBatch& all, const int32_t* crop, bool flip,
                                     Workspace& work) {
    const int64_t row_taps = resampling(crop[0], crop[2], false, all.rows, all.height, all.bicubic, work.first_row,
                                        work.row_weights);
    const int64_t column_taps = resampling(crop[1], crop[3], flip, all.columns, all.width, all.bicubic,
                                           work.first_column, work.column_weights);
    const auto [leftmost, rightmost] = std::minmax_element(work.first_column.begin(), work.first_column.end());
    const int64_t left = *leftmost, width = *rightmost + column_taps - left;
    const int32_t* first = work.first_column.data();
    work.row.resize(width);
    float* row = work.row.data() - left;
    for (int64_t c = 0; c < all.channels; ++c) {
        for (int64_t y = 0; y < all.rows; ++y) {
            const uint8_t* source = image + (c * all.height + work.first_row[y]) * all.width;
            std::fill_n(row + left, width, 0.0f);
            for (int64_t t = 0; t < row_taps; ++t, source += all.width) {
                const float weight = work.row_weights[t * all.rows + y] * (1.0f / 255);
#pragma omp simd
                for (int64_t x = left; x < left + width; ++x) row[x] += weight * float(source[x]);
            }
            float* out = work.view.data() + (c * all.rows + y) * all.columns;
            std::fill_n(out, all.columns, 0.0f);
            for (int64_t t = 0; t < column_taps; ++t) {
                const float* weight = work.column_weights.data() + t * all.columns;
#pragma omp simd
                for (int64_t x = 0; x < all.columns; ++x) out[x] += weight[x] * row[first[x] + t];
            }
            if (all.bicubic) {  // the cubic overshoots at edges
#pragma omp simd
                for (int64_t x = 0; x < all.columns; ++x) out[x] = clamp01(out[x]);
            }
        }
    }
}

SSLFAST_INLINE float luma(float red, float green, float blue) {
    return kLuma[0] * red + kLuma[1] * green + kLuma[2] * blue;
}

// factor * x + (1 - factor) * (black, mean gray or gray), clamped; a view of one channel is its own gray.
SSLFAST_INLINE void blend(float* view, int64_t channels, int64_t pixels, int kind, float factor) {
    float *red = view, *green = view + pixels, *blue = view + 2 * pixels;
    if (kind == kSaturation) {
#pragma omp simd
        for (int64_t i = 0; i < pixels; ++i) {
            const float gray = (1 - factor) * luma(red[i], green[i], blue[i]);
            red[i] = clamp01(factor * red[i] + gray);
            green[i] = clamp01(factor * green[i] + gray);
            blue[i] = clamp01(factor * blue[i] + gray);
        }
        return;
    }
    float offset = 0;
    if (kind == kContrast) {
        double total = 0;
        for (int64_t from = 0; from < pixels; from += 4096) {  // in parts, so that a float holds the sum
            float sum = 0;
            const int64_t to = std::min(pixels, from + 4096);
            if (channels == 3) {
#pragma omp simd reduction(+ : sum)
                for (int64_t i = from; i < to; ++i) sum += luma(red[i], green[i], blue[i]);
            } else {
#pragma omp simd reduction(+ : sum)
                for (int64_t i = from; i < to; ++i) sum += view[i];
            }
            total += sum;
        }
        offset = (1 - factor) * float(total / double(pixels));
    }
#pragma omp simd
    for (int64_t i = 0; i < channels * pixels; ++i) view[i] = clamp01(factor * view[i] + offset);
}

// One channel of a colour whose hue is `away` sixths of the circle from that channel's place: maximum V within one sixth
// of it, minimum V - chroma from two sixths on, linear between.
SSLFAST_INLINE float channel(float value, float chroma, float away) {
    const float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const float turns = (away * (1.0f / 6) + shifter) - shifter;
    return value - chroma * clamp01(std::fabs(away - 6 * turns) - 1);
}

// Turns the hue by `shift` of a full circle, through HSV.
SSLFAST_INLINE void shift_hue(float* view, int64_t pixels, float shift) {
    float *red = view, *green = view + pixels, *blue = view + 2 * pixels;
#pragma omp simd
    for (int64_t i = 0; i < pixels; ++i) {
        const float r = red[i], g = green[i], b = blue[i];
        const float value = std::max(r, std::max(g, b));
        const float chroma = value - std::min(r, std::min(g, b));
        const float inverse = 1 / std::max(chroma, 1e-30f);  // gray has no hue, and any will do
        const float of_blue = (r - g) * inverse + 4, of_green = (b - r) * inverse + 2, of_red = (g - b) * inverse;
        const float hue = (value == r ? of_red : value == g ? of_green : of_blue) + 6 * shift;
        red[i] = channel(value, chroma, hue);
        green[i] = channel(value, chroma, hue - 2);
        blue[i] = channel(value, chroma, hue - 4);
    }
}

SSLFAST_INLINE void jitter(float* view, const ViewBatch& all, const float* factor, const int32_t* order) {
    const int64_t pixels = all.rows * all.columns;
    for (int k = 0; k < 4; ++k) {
        const int kind = order[k] & 3;
        if (!all.jitters[kind] || (all.channels == 1 && kind >= kSaturation)) continue;
        if (kind == kHue) {
            if (factor[kHue] != 0) shift_hue(view, pixels, factor[kHue]);
        } else if (factor[kind] != 1) {
            blend(view, all.channels, pixels, kind, factor[kind]);
        }
    }
}

SSLFAST_INLINE void to_gray(float* view, int64_t pixels) {
    float *red = view, *green = view + pixels, *blue = view + 2 * pixels;
#pragma omp simd
    for (int64_t i = 0; i < pixels; ++i) red[i] = green[i] = blue[i] = luma(red[i], green[i], blue[i]);
}

// Gaussian window of 2 * radius + 1 taps, borders reflected; first along rows, then along columns.
SSLFAST_INLINE void blur(Workspace& work, const ViewBatch& all, float sigma) {
    const int64_t h = all.rows, w = all.columns;
    std::vector<float> tap(all.blur_radius + 1);
    double sum = 0;
    for (int64_t t = 0; t <= all.blur_radius; ++t) {
        const double distance = double(t) / std::max(sigma, 1e-4f);
        tap[t] = float(std::exp(-0.5 * distance * distance));
        sum += (t ? 2 : 1) * double(tap[t]);
    }
    int64_t radius = 0;
    for (int64_t t = 0; t <= all.blur_radius; ++t) {
        tap[t] = float(double(tap[t]) / sum);
        if (tap[t] > kNegligible) radius = t;
    }
    if (radius == 0) return;
    work.padded.resize(w + 2 * radius);
    work.spare.resize(h * w);
    for (int64_t c = 0; c < all.channels; ++c) {
        float* plane = work.view.data() + c * h * w;
        for (int64_t y = 0; y < h; ++y) {
            float* middle = work.padded.data() + radius;
            std::copy_n(plane + y * w, w, middle);
            for (int64_t t = 1; t <= radius; ++t) middle[-t] = middle[t], middle[w - 1 + t] = middle[w - 1 - t];
            float* out = work.spare.data() + y * w;
#pragma omp simd
            for (int64_t x = 0; x < w; ++x) out[x] = tap[0] * middle[x];
            for (int64_t t = 1; t <= radius; ++t) {
                const float weight = tap[t];
#pragma omp simd
                for (int64_t x = 0; x < w; ++x) out[x] += weight * (middle[x - t] + middle[x + t]);
            }
        }
        for (int64_t y = 0; y < h; ++y) {
            const float* middle = work.spare.data() + y * w;
            float* out = plane + y * w;
#pragma omp simd
            for (int64_t x = 0; x < w; ++x) out[x] = tap[0] * middle[x];
            for (int64_t t = 1; t <= radius; ++t) {
                const float* above = work.spare.data() + std::abs(y - t) * w;
                const float* below = work.spare.data() + (y + t < h ? y + t : 2 * (h - 1) - y - t) * w;
                const float weight = tap[t];
#pragma omp simd
                for (int64_t x = 0; x < w; ++x) out[x] += weight * (above[x] + below[x]);
            }
        }
    }
}

SSLFAST_INLINE void store(float* to, float x) { *to = x; }
SSLFAST_INLINE void store(Half* to, float x) { *to = to_half(x); }
SSLFAST_INLINE void store(Bf16* to, float x) { *to = to_bf16(x); }

template <typename T>
SSLFAST_INLINE void finish(const float* view, const ViewBatch& all, float threshold, T* out) {
    const int64_t pixels = all.rows * all.columns;
    for (int64_t c = 0; c < all.channels; ++c) {
        const float scale = all.scale[c], offset = all.offset[c];
#pragma omp simd
        for (int64_t i = c * pixels; i < (c + 1) * pixels; ++i) {
            const float x = view[i] >= threshold ? 1 - view[i] : view[i];
            store(out + i, scale * x + offset);
        }
    }
}

SSLFAST_MULTIVERSION
void make_view(const uint8_t* image, const ViewRows& params, const ViewBatch& all, int64_t i, Workspace& work,
               void* views) {
    const int64_t pixels = all.rows * all.columns, elements = all.channels * pixels;
    work.view.resize(elements);
    crop_resize_flip(image, all, params.crop + 4 * i, params.flip[i], work);
    jitter(work.view.data(), all, params.jitter + 4 * i, params.order + 4 * i);
    if (params.grayscale[i] && all.channels == 3) to_gray(work.view.data(), pixels);
    if (params.blur[i] > 0 && all.blur_radius > 0) blur(work, all, params.blur[i]);
    switch (all.type) {
        case 0: return finish(work.view.data(), all, params.solarize[i], static_cast<float*>(views) + i * elements);
        case 1: return finish(work.view.data(), all, params.solarize[i], static_cast<Bf16*>(views) + i * elements);
        case 2: return finish(work.view.data(), all, params.solarize[i], static_cast<Half*>(views) + i * elements);
    }
}

}  // namespace

void augment(const uint8_t* images, const ViewRows& params, const ViewBatch& all, void* views) {
#pragma omp parallel if (all.batch > 1)
    {
        Workspace work;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < all.batch; ++i)
            make_view(images + i * all.channels * all.height * all.width, params, all, i, work, views);
    }
}

}  // namespace sslfast::cpu
