#include "cpu/masked_patch_loss.h"

#include <cmath>

#include "common/simd.h"
#include "cpu/stream.h"

namespace sslfast::cpu {
namespace {

constexpr double kEps = 1e-6;  // added to the variance of a patch

struct Statistics {
    float mean, rstd;
};

// Sums over the numbers of an array, which f(x, sums) adds to and may change on the way. It gets as many x as a register holds, or
// one. Of each sum there are as many parts as the adders work on at once, so few numbers of each that they round little.
template <int kCount, typename F>
SSLFAST_INLINE void add_up(float* x, int64_t size, double (&totals)[kCount], const F& f) {
    constexpr int64_t kParts = 4;
    Part parts[kParts][kCount] = {}, y;
    int64_t i = 0;
    for (; i + kParts * kWidth <= size; i += kParts * kWidth)
        for (int64_t p = 0; p < kParts; ++p) {
            std::memcpy(&y, x + i + p * kWidth, sizeof y);
            f(y, parts[p]);
            std::memcpy(x + i + p * kWidth, &y, sizeof y);
        }
    for (int64_t s = 0; s < kCount; ++s) {
        const Part all = (parts[0][s] + parts[1][s]) + (parts[2][s] + parts[3][s]);
        totals[s] = 0;
        for (int64_t lane = 0; lane < kWidth; ++lane) totals[s] += all[lane];
    }
    for (; i < size; ++i) f(x[i], totals);
}

// By deviations from a first mean, which x becomes: nothing cancels, and their own mean corrects it.
Statistics center(float* x, int64_t size, float* mean) {
    double total[1], moments[2];
    add_up(x, size, total, [](const auto& y, auto& sums) { sums[0] += y; });
    const float about = float(total[0] / double(size));
    add_up(x, size, moments, [&](auto& y, auto& sums) {
        y -= about;
        sums[0] += y;
        sums[1] += y * y;
    });
    const double shift = moments[0] / double(size), variance = (moments[1] - moments[0] * shift) / double(size - 1);
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
    double total[1];
    add_up(x, size, total, [](const auto& y, auto& sums) { sums[0] += y * y; });
    return total[0];
}

void scaled_error(const void* pred, int type, const float* x, int64_t size, Statistics t, float factor, void* out) {
    with_type(type, [&](auto zero) {
        using T = decltype(zero);
        const T* from = static_cast<const T*>(pred);
        T* to = static_cast<T*>(out);
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) store(to + i, factor * (to_float(from[i]) - (x[i] - t.mean) * t.rstd));
    });
}

// Patches that a thread takes at a time: whole rows of an image, as memory likes it, as long as there are tasks for all.
[[maybe_unused]] int64_t at_once(const Images& images) {
    constexpr int64_t kTasks = 64;
    const int64_t across = images.width / images.patch_size, down = images.height / images.patch_size;
    return across * std::clamp<int64_t>(down * images.batch / kTasks, 1, down);
}

// Asks for the prediction of a patch soon to come, if it is masked.
void prefetch_ahead(const Prediction& pred, int64_t row, int64_t rows, int64_t bytes) {
    const int64_t next = std::min(row + 2, rows - 1);
    if (pred.mask[next]) prefetch(static_cast<const char*>(pred.data) + next * bytes, bytes);
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
#pragma omp for schedule(dynamic, at_once(images))
        for (int64_t row = 0; row < rows; ++row) {
            prefetch_below(images, row / images.patches(), row % images.patches());
            prefetch_ahead(pred, row, rows, bytes);
            Statistics t{0, 0};
            float middle = 0;
            if (pred.mask[row]) {
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
#pragma omp for schedule(dynamic, at_once(images))
        for (int64_t row = 0; row < rows; ++row) {
            prefetch_below(images, row / images.patches(), row % images.patches());
            prefetch_ahead(pred, row, rows, bytes);
            char* to = static_cast<char*>(dpred) + row * bytes;
            if (!pred.mask[row]) {
                put(streamed, to, nullptr, bytes);
                continue;
            }
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
