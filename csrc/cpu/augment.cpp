#include "cpu/augment.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/half.h"
#include "common/simd.h"
#include "cpu/augment_resize.h"

namespace sslfast::cpu {
namespace {

enum Adjustment { kBrightness, kContrast, kSaturation, kHue };
constexpr float kLuma[3] = {0.2989f, 0.587f, 0.114f};  // ITU-R 601-2 as torchvision rounds it
constexpr float kNegligible = 1e-9f;                   // taps of a blur below it are left out
constexpr float kLeastSigma = 1e-4f;                   // of a blur; below it only the middle tap counts
constexpr float kLeastChroma = 1e-30f;                 // what is divided by: gray has no hue and no saturation
constexpr float kShifter = 0x1.8p23f;                  // adding it rounds to an integer
constexpr int64_t kMeanPart = 4096;                    // pixels whose sum a float holds

template <typename Pixel>
constexpr float kWhite = 1;
template <>
constexpr float kWhite<uint8_t> = 255;
template <>
constexpr float kWhite<uint16_t> = 65535;

// A view at work: planes in [0, 1], which stay in cache, and room for what its steps need.
struct Workspace {
    Crop crop;
    std::vector<float> view, taps, padded, spare;
    std::vector<const float*> lines;
};


template <typename Pixel>
SSLFAST_INLINE void crop_resize_flip(const Pixel* image, const ViewBatch& all, const ViewRows& params, int64_t i,
                                     Workspace& work) {
    const int32_t* crop = params.crop + 4 * i;
    const int64_t height = params.sizes ? std::clamp<int64_t>(params.sizes[2 * i], 1, all.height) : all.height;
    const int64_t width = params.sizes ? std::clamp<int64_t>(params.sizes[2 * i + 1], 1, all.width) : all.width;
    const bool antialias = !all.simclr;
    work.crop.rows.prepare(crop[0], crop[2], height, false, all.rows, all.bicubic, antialias,
                           1.0f / kWhite<Pixel>);
    work.crop.columns.prepare(crop[1], crop[3], width, params.flip[i], all.columns, all.bicubic, antialias, 1);
    work.crop.resize(image, all.channels, all.height, all.width, all.bicubic, work.view.data());
}

SSLFAST_INLINE float luma(float red, float green, float blue) {
    return kLuma[0] * red + kLuma[1] * green + kLuma[2] * blue;
}

SSLFAST_INLINE float mean(const float* plane, int64_t pixels) {
    double total = 0;
    for (int64_t from = 0; from < pixels; from += kMeanPart) {
        float sum = 0;
        const int64_t to = std::min(pixels, from + kMeanPart);
#pragma omp simd reduction(+ : sum)
        for (int64_t i = from; i < to; ++i) sum += plane[i];
        total += sum;
    }
    return float(total / double(pixels));
}

// factor * x, clamped; contrast adds (1 - factor) * the mean of the gray or, as TensorFlow does it, of each channel.
SSLFAST_INLINE void scale(float* view, int64_t channels, int64_t pixels, float factor, bool contrast,
                          bool per_channel) {
    float middle = 0;
    for (int64_t c = 0; c < channels && contrast && !per_channel; ++c)
        middle += (channels == 3 ? kLuma[c] : 1 / float(channels)) * mean(view + c * pixels, pixels);
    for (int64_t c = 0; c < channels; ++c) {
        float* plane = view + c * pixels;
        if (contrast && per_channel) middle = mean(plane, pixels);
        const float offset = (1 - factor) * middle;
#pragma omp simd
        for (int64_t i = 0; i < pixels; ++i) plane[i] = clamp01(factor * plane[i] + offset);
    }
}

// factor * x + (1 - factor) * gray, clamped.
SSLFAST_INLINE void saturate(float* view, int64_t pixels, float factor) {
    float *red = view, *green = view + pixels, *blue = view + 2 * pixels;
#pragma omp simd
    for (int64_t i = 0; i < pixels; ++i) {
        const float gray = (1 - factor) * luma(red[i], green[i], blue[i]);
        red[i] = clamp01(factor * red[i] + gray);
        green[i] = clamp01(factor * green[i] + gray);
        blue[i] = clamp01(factor * blue[i] + gray);
    }
}

// Scales the saturation chroma / V of HSV up to 1, V and the hue being kept: V - x is scaled.
SSLFAST_INLINE void saturate_hsv(float* view, int64_t pixels, float factor) {
    float *red = view, *green = view + pixels, *blue = view + 2 * pixels;
#pragma omp simd
    for (int64_t i = 0; i < pixels; ++i) {
        const float r = red[i], g = green[i], b = blue[i];
        const float value = std::max(r, std::max(g, b));
        const float chroma = value - std::min(r, std::min(g, b));
        const float scale = std::min(factor, value / std::max(chroma, kLeastChroma));
        red[i] = clamp01(value - (value - r) * scale);
        green[i] = clamp01(value - (value - g) * scale);
        blue[i] = clamp01(value - (value - b) * scale);
    }
}

// One channel of a colour whose hue is `away` sixths of the circle from that channel's place: maximum V within one sixth
// of it, minimum V - chroma from two sixths on, linear between.
SSLFAST_INLINE float channel(float value, float chroma, float away) {
    const float turns = (away * (1.0f / 6) + kShifter) - kShifter;
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
        const float inverse = 1 / std::max(chroma, kLeastChroma);  // gray has no hue, and any will do
        const float of_blue = (r - g) * inverse + 4, of_green = (b - r) * inverse + 2, of_red = (g - b) * inverse;
        const float hue = (value == r ? of_red : value == g ? of_green : of_blue) + 6 * shift;
        red[i] = channel(value, chroma, hue);
        green[i] = channel(value, chroma, hue - 2);
        blue[i] = channel(value, chroma, hue - 4);
    }
}

SSLFAST_INLINE void jitter(float* view, const ViewBatch& all, const float* factors, const int32_t* order) {
    const int64_t pixels = all.rows * all.columns;
    for (int k = 0; k < 4; ++k) {
        const int kind = order[k] & 3;
        const float factor = factors[kind];
        const bool colourless = all.channels != 3 && (kind == kSaturation || kind == kHue);
        if (!all.jitters[kind] || colourless || factor == (kind == kHue ? 0 : 1)) continue;
        if (kind == kHue) {
            shift_hue(view, pixels, factor);
        } else if (kind == kSaturation) {
            all.simclr ? saturate_hsv(view, pixels, factor) : saturate(view, pixels, factor);
        } else {
            scale(view, all.channels, pixels, factor, kind == kContrast, all.simclr);
        }
    }
}

SSLFAST_INLINE void to_gray(float* view, int64_t pixels) {
    float *red = view, *green = view + pixels, *blue = view + 2 * pixels;
#pragma omp simd
    for (int64_t i = 0; i < pixels; ++i) red[i] = green[i] = blue[i] = luma(red[i], green[i], blue[i]);
}

// The taps of a Gaussian window of 2 * radius + 1; returns the radius within which they are not negligible.
SSLFAST_INLINE int64_t gaussian(float sigma, int64_t radius, std::vector<float>& taps) {
    taps.resize(radius + 1);
    double sum = 0;
    for (int64_t t = 0; t <= radius; ++t) {
        const double distance = double(t) / std::max(sigma, kLeastSigma);
        taps[t] = float(std::exp(-0.5 * distance * distance));
        sum += (t ? 2 : 1) * double(taps[t]);
    }
    int64_t reach = 0;
    for (int64_t t = 0; t <= radius; ++t) {
        taps[t] = float(double(taps[t]) / sum);
        if (!(taps[t] <= kNegligible)) reach = t;  // also where sigma is NaN
    }
    return reach;
}

// Along rows, then along columns; beyond the borders it is black (SimCLR) or the reflection.
SSLFAST_INLINE void blur(Workspace& work, const ViewBatch& all, float sigma) {
    const int64_t h = all.rows, w = all.columns, stride = (w + kLanes - 1) / kLanes * kLanes;
    const int64_t radius = gaussian(sigma, all.blur_radius, work.taps);
    if (radius == 0) return;
    const float* taps = work.taps.data();
    work.padded.assign(stride + 2 * radius, 0.0f);
    work.spare.resize((h + 1) * stride);
    work.lines.resize(h + 2 * radius);
    float* middle = work.padded.data() + radius;
    float* black = work.spare.data() + h * stride;
    std::fill_n(black, stride, 0.0f);
    for (int64_t y = -radius; y < h + radius; ++y) {
        const int64_t reflected = y < 0 ? -y : y < h ? y : 2 * (h - 1) - y;
        work.lines[y + radius] = all.simclr && reflected != y ? black : work.spare.data() + reflected * stride;
    }
    Lanes before, after;
    for (int64_t c = 0; c < all.channels; ++c) {
        float* plane = work.view.data() + c * h * w;
        for (int64_t y = 0; y < h; ++y) {
            std::copy_n(plane + y * w, w, middle);
            for (int64_t t = 1; t <= radius && !all.simclr; ++t) {
                middle[-t] = middle[t];
                middle[w - 1 + t] = middle[w - 1 - t];
            }
            for (int64_t x = 0; x < w; x += kLanes) {
                Lanes sum = {};
                load(middle + x, before);
                add_product(sum, taps[0], before);
                for (int64_t t = 1; t <= radius; ++t) {
                    load(middle + x - t, before), load(middle + x + t, after);
                    add_product(sum, taps[t], before, after);
                }
                store(sum, work.spare.data() + y * stride + x);
            }
        }
        for (int64_t y = 0; y < h; ++y) {
            const float* const* line = work.lines.data() + radius + y;
            for (int64_t x = 0; x < w; x += kLanes) {
                Lanes sum = {};
                load(line[0] + x, before);
                add_product(sum, taps[0], before);
                for (int64_t t = 1; t <= radius; ++t) {
                    load(line[-t] + x, before), load(line[t] + x, after);
                    add_product(sum, taps[t], before, after);
                }
                store(sum, plane + y * w + x, std::min(kLanes, w - x));
            }
        }
    }
}

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

template <typename Pixel>
void make_view(const Pixel* image, const ViewRows& params, const ViewBatch& all, int64_t i, Workspace& work,
               void* views) {
    const int64_t pixels = all.rows * all.columns, elements = all.channels * pixels;
    work.view.resize(elements);
    crop_resize_flip(image, all, params, i, work);
    jitter(work.view.data(), all, params.jitter + 4 * i, params.order + 4 * i);
    if (params.grayscale[i] && all.channels == 3) to_gray(work.view.data(), pixels);
    if (!(params.blur[i] <= 0) && all.blur_radius > 0) blur(work, all, params.blur[i]);
    with_type(all.type, [&](auto zero) {
        finish(work.view.data(), all, params.solarize[i], static_cast<decltype(zero)*>(views) + i * elements);
    });
}

}  // namespace

void augment(const void* images, const ViewRows& params, const ViewBatch& all, void* views) {
    const int64_t elements = all.channels * all.height * all.width;
#pragma omp parallel if (all.batch > 1)
    {
        Workspace work;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < all.batch; ++i)
            with_one_of<uint8_t, uint16_t, float>(all.source, [&](auto zero) {
                make_view(static_cast<const decltype(zero)*>(images) + i * elements, params, all, i, work, views);
            });
    }
}

}  // namespace sslfast::cpu
