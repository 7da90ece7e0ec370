#include "cpu/masked_patch_loss.h"

#include <cmath>

#include "common/simd.h"
#include "cpu/stream.h"

namespace sslfast::cpu {
namespace {

constexpr double kEps = 1e-6;

struct Statistics {
    float mean, rstd;
};

// The sum of f(x), in as many parts as the adders work on at once; so few numbers of each part round little.
template <typename F>
SSLFAST_INLINE double sum(const float* x, int64_t size, F f) {
    constexpr int64_t kSums = 4;
    Part sums[kSums] = {}, y;
    int64_t i = 0;
    for (; i + kSums * kWidth <= size; i += kSums * kWidth)
        for (int64_t s = 0; s < kSums; ++s) {
            std::memcpy(&y, x + i + s * kWidth, sizeof y);
            sums[s] += f(y);
        }
    const Part all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    double total = 0;
    for (int64_t lane = 0; lane < kWidth; ++lane) total += all[lane];
    for (; i < size; ++i) total += f(x[i]);
    return total;
}

// By deviations from a first mean, which x becomes: nothing cancels, and their own mean corrects it.
Statistics center(float* x, int64_t size, float* mean) {
    const auto itself = [](const auto& y) { return y; };
    const float about = float(sum(x, size, itself) / double(size));
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) x[i] -= about;
    const double first = sum(x, size, itself), second = sum(x, size, [](const auto& y) { return y * y; });
    const double shift = first / double(size), variance = (second - first * shift) / double(size - 1);
    *mean = float(about + shift);
    return {float(shift), float(1 / std::sqrt(variance + kEps))};
}

// The target x becomes the error.
double squared_error(const void* pred, int type, float* x, int64_t size, Statistics t) {
    with_type(type, [&](auto zero) {
        const auto* from = static_cast<const decltype(zero)*>(pred);
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) x[i] = to_float(from[i]) - (x[i] - t.mean) * t.rstd;
    });
    return sum(x, size, [](const auto& y) { return y * y; });
}

template <typename T>
SSLFAST_INLINE void errors(const void* pred, const float* x, int64_t size, Statistics t, float factor, void* out) {
#pragma omp simd
    for (int64_t i = 0; i < size; ++i) {
        const float error = to_float(static_cast<const T*>(pred)[i]) - (x[i] - t.mean) * t.rstd;
        store(static_cast<T*>(out) + i, factor * error);
    }
}

void scaled_error(const void* pred, int type, const float* x, int64_t size, Statistics t, float factor, void* out) {
    switch (type) {
        case kFloat: return errors<float>(pred, x, size, t, factor, out);
        case kBf16: return errors<Bf16>(pred, x, size, t, factor, out);
        case kHalf: return errors<Half>(pred, x, size, t, factor, out);
    }
}

// The memory of the next masked patch behind `row`.
void prefetch_next(const Prediction& pred, const Images& images, int64_t row, int64_t rows, int64_t bytes) {
    do ++row;
    while (row < rows && !pred.mask[row]);
    if (row == rows) return;
    prefetch_patch(images, row / images.patches(), row % images.patches());
    prefetch(static_cast<const char*>(pred.data) + row * bytes, bytes);
}

}  // namespace

void masked_patch_loss(const Prediction& pred, const Images& images, float* mean, float* rstd, float* loss,
                       float* count) {
    const int64_t rows = images.batch * images.patches(), size = images.elements();
    const int64_t bytes = size * kSizes[pred.type];
    std::vector<double> sums(rows);
#pragma omp parallel if (rows * bytes > kSerialBytes)
    {
        std::vector<float> target(size);
#pragma omp for schedule(dynamic, rows_at_once(bytes))
        for (int64_t row = 0; row < rows; ++row) {
            Statistics t{0, 0};
            float middle = 0;
            if (pred.mask[row]) {
                prefetch_next(pred, images, row, rows, bytes);
                read_patch(images, row / images.patches(), row % images.patches(), target.data());
                t = mean ? center(target.data(), size, &middle) : Statistics{0, 1};
                const char* from = static_cast<const char*>(pred.data) + row * bytes;
                sums[row] = squared_error(from, pred.type, target.data(), size, t);
            }
            if (mean) mean[row] = middle, rstd[row] = t.rstd;
        }
    }
    double total = 0;
    int64_t masked = 0;
    for (int64_t row = 0; row < rows; ++row)
        if (pred.mask[row]) total += sums[row], ++masked;
    *loss = float(total / (double(size) * double(masked)));
    *count = float(masked);
}

void masked_patch_loss_backward(const Prediction& pred, const Images& images, const float* mean, const float* rstd,
                                float factor, void* dpred) {
    const int64_t rows = images.batch * images.patches(), size = images.elements();
    const int64_t bytes = size * kSizes[pred.type];
    const bool streamed = rows * bytes >= kStreamBytes;
#pragma omp parallel if (rows * bytes > kSerialBytes)
    {
        std::vector<float> target(size);
        std::vector<char> line(streamed ? bytes : 0);
#pragma omp for schedule(dynamic, rows_at_once(bytes))
        for (int64_t row = 0; row < rows; ++row) {
            char* to = static_cast<char*>(dpred) + row * bytes;
            if (!pred.mask[row]) {
                put(streamed, to, nullptr, bytes);
                continue;
            }
            prefetch_next(pred, images, row, rows, bytes);
            read_patch(images, row / images.patches(), row % images.patches(), target.data());
            const Statistics t = mean ? Statistics{mean[row], rstd[row]} : Statistics{0, 1};
            const char* from = static_cast<const char*>(pred.data) + row * bytes;
            scaled_error(from, pred.type, target.data(), size, t, factor, streamed ? line.data() : to);
            if (streamed) stream(to, line.data(), bytes);
        }
        end_streams();
    }
}

}  // namespace sslfast::cpu
