#include "cpu/negative_cosine_similarity.h"

#include <cmath>

#include "common/half.h"
#include "common/simd.h"
#include "cpu/rows.h"

namespace sslfast::cpu {
namespace {

constexpr double kEps = 1e-12;              // of F.normalize
constexpr int64_t kSerialElements = 1 << 14;  // of a side; fewer are not worth waking threads for

// In double no square of a float overflows or vanishes, and the difference of nearly parallel rows stays exact; memory
// is slower than these sums.
struct Row {
    double p_scale, z_scale, cosine;

    static double scale(double squares) {
        const double norm = std::sqrt(squares);
        return norm == 0 ? 0 : 1 / (norm < kEps ? kEps : norm);
    }

    Row(double pp, double zz, double pz) : p_scale(scale(pp)), z_scale(scale(zz)), cosine(pz * p_scale * z_scale) {}
};

template <typename T>
SSLFAST_INLINE Row row_of(const T* p, const T* z, int64_t dim) {
    double pp = 0, zz = 0, pz = 0;
#pragma omp simd reduction(+ : pp, zz, pz)
    for (int64_t d = 0; d < dim; ++d) {
        const double x = to_float(p[d]), y = to_float(z[d]);
        pp += x * x;
        zz += y * y;
        pz += x * y;
    }
    return {pp, zz, pz};
}

// The gradient to x of grad * -cosine(x, y): -grad (y/|y| - cosine x/|x|)/|x|.
template <typename T>
SSLFAST_INLINE void gradient(double grad, double cosine, const T* x, double x_scale, const T* y, double y_scale,
                             int64_t dim, T* out) {
    const double across = -grad * x_scale * y_scale;
    const double free = x_scale < 1 / kEps;  // 0 where eps divides: it is constant
    const double along = grad * cosine * x_scale * x_scale * free;
#pragma omp simd
    for (int64_t d = 0; d < dim; ++d) store(out + d, float(across * to_float(y[d]) + along * to_float(x[d])));
}

void forward_row(const void* all_p, const void* all_z, int type, int64_t i, int64_t dim, float* loss) {
    with_type(type, [&](auto zero) {
        using T = decltype(zero);
        const T *p = static_cast<const T*>(all_p) + i * dim, *z = static_cast<const T*>(all_z) + i * dim;
        *loss = float(-row_of(p, z, dim).cosine);
    });
}

void backward_row(double grad, const void* all_p, const void* all_z, int type, int64_t i, int64_t dim, void* dp,
                  void* dz) {
    with_type(type, [&](auto zero) {
        using T = decltype(zero);
        const T *p = static_cast<const T*>(all_p) + i * dim, *z = static_cast<const T*>(all_z) + i * dim;
        const Row row = row_of(p, z, dim);
        if (dp) gradient(grad, row.cosine, p, row.p_scale, z, row.z_scale, dim, static_cast<T*>(dp) + i * dim);
        if (dz) gradient(grad, row.cosine, z, row.z_scale, p, row.p_scale, dim, static_cast<T*>(dz) + i * dim);
    });
}

}  // namespace

void negative_cosine_similarity(const void* p, const void* z, int type, int64_t rows, int64_t dim, float* loss) {
#pragma omp parallel for schedule(dynamic, rows_at_once(2 * dim * kSizes[type])) if (rows * dim > kSerialElements)
    for (int64_t i = 0; i < rows; ++i) forward_row(p, z, type, i, dim, loss + i);
}

void negative_cosine_similarity_backward(const float* grad, const void* p, const void* z, int type, int64_t rows,
                                         int64_t dim, void* dp, void* dz) {
#pragma omp parallel for schedule(dynamic, rows_at_once(4 * dim * kSizes[type])) if (rows * dim > kSerialElements)
    for (int64_t i = 0; i < rows; ++i) backward_row(grad[i], p, z, type, i, dim, dp, dz);
}

}  // namespace sslfast::cpu
