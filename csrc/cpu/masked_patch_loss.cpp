#include "cpu/masked_patch_loss.h"

#include <cmath>

#include "common/simd.h"

namespace sslfast::cpu {
namespace {

constexpr float kEps = 1e-6f;

struct Statistics {
    float mean, rstd;
};

// By deviations from a first mean: nothing cancels, and their own mean corrects it.
Statistics statistics(const float* x, int64_t size) {
    float sum = 0, first = 0, second = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < size; ++i) sum += x[i];
    const float about = sum / float(size);
#pragma omp simd reduction(+ : first, second)
    for (int64_t i = 0; i < size; ++i) {
        const float away = x[i] - about;
        first += away;
        second += away * away;
    }
    const float shift = first / float(size);
    const float variance = (second - first * shift) / float(size - 1);
    return {about + shift, 1 / std::sqrt(variance + kEps)};
}

template <typename T>
SSLFAST_INLINE float squares(const void* pred, const float* x, int64_t size, Statistics t) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < size; ++i) {
        const float error = to_float(static_cast<const T*>(pred)[i]) - (x[i] - t.mean) * t.rstd;
        sum += error * error;
    }
    return sum;
}

float squared_error(const void* pred, int type, const float* x, int64_t size, Statistics t) {
    switch (type) {
        case kBf16: return squares<Bf16>(pred, x, size, t);
        case kHalf: return squares<Half>(pred, x, size, t);
        default: return squares<float>(pred, x, size, t);
    }
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
    std::vector<float> sums(rows);
#pragma omp parallel if (rows * bytes > kSerialBytes)
    {
        std::vector<float> target(size);
#pragma omp for
        for (int64_t row = 0; row < rows; ++row) {
            Statistics t{0, 0};
            if (pred.mask[row]) {
                prefetch_next(pred, images, row, rows, bytes);
                read_patch(images, row / images.patches(), row % images.patches(), target.data());
                t = mean ? statistics(target.data(), size) : Statistics{0, 1};
                const char* from = static_cast<const char*>(pred.data) + row * bytes;
                sums[row] = squared_error(from, pred.type, target.data(), size, t);
            }
            if (mean) mean[row] = t.mean, rstd[row] = t.rstd;
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
#pragma omp parallel if (rows * bytes > kSerialBytes)
    {
        std::vector<float> target(size);
#pragma omp for
        for (int64_t row = 0; row < rows; ++row) {
            char* to = static_cast<char*>(dpred) + row * bytes;
            if (!pred.mask[row]) {
                std::memset(to, 0, bytes);
                continue;
            }
            prefetch_next(pred, images, row, rows, bytes);
            read_patch(images, row / images.patches(), row % images.patches(), target.data());
            const Statistics t = mean ? Statistics{mean[row], rstd[row]} : Statistics{0, 1};
            const char* from = static_cast<const char*>(pred.data) + row * bytes;
            scaled_error(from, pred.type, target.data(), size, t, factor, to);
        }
    }
}

}  // namespace sslfast::cpu
