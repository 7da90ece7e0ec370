#include "cpu/nt_xent.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/simd.h"

namespace sslfast::cpu {
namespace {

constexpr float kEps = 1e-12f;      // of F.normalize
constexpr float kLeast = -2;        // below every cosine
constexpr float kDropped = -3e38f;  // its exponential is zero; an infinity would meet its opposite in the low part
constexpr int64_t kBlockRows = 16;  // rows a thread takes at a time; fixed, so sums do not depend on the threads

// log2(e)/tau in two parts: rounded to one float it would be another temperature, and the gradient of tau would show it.
struct Inverse {
    float high, low;
    explicit Inverse(double inverse_tau)
        : high(float(inverse_tau * kLog2e)), low(float(inverse_tau * kLog2e - double(high))) {}
    // exp((cosine - shift)/tau)
    __attribute__((always_inline)) float exponential(float cosine, float shift) const {
        const float above = cosine - shift;
        return exp2_fast(above * high + above * low);
    }
};

// Takes the pairs of row i with itself and with its partner out of a tile, noting the cosine of the latter.
inline void drop(float* row, int64_t i, int64_t i0, int64_t j0, int64_t cols, int64_t pairs, float* positive) {
    if (i0 == j0) row[i - j0] = kDropped;
    const int64_t partner = (i < pairs ? i + pairs : i - pairs) - j0;
    if (partner < 0 || partner >= cols) return;
    if (positive) positive[i] = positive[j0 + partner] = row[partner];
    row[partner] = kDropped;
}

SSLFAST_MULTIVERSION
void normalize_row(const float* z, int64_t dim, float* u, float* scale) {
    float largest = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t d = 0; d < dim; ++d) largest = std::max(largest, std::fabs(z[d]));
    const float divisor = largest > 0 ? largest : 1;
    float squares = 0;  // divided by the largest, no square overflows or vanishes
#pragma omp simd reduction(+ : squares)
    for (int64_t d = 0; d < dim; ++d) squares += (z[d] / divisor) * (z[d] / divisor);
    float norm = largest * std::sqrt(squares);
    norm = norm < kEps ? kEps : norm;
    *scale = squares == 0 ? 0 : 1 / norm;
#pragma omp simd
    for (int64_t d = 0; d < dim; ++d) u[d] = z[d] / norm;
}

// Maximum fixed at 1: one exponential a pair.
SSLFAST_MULTIVERSION
float fixed_row(const float* cosine, int64_t cols, Inverse k, float* column_sum) {
    float sum = 0;
    if (column_sum) {
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < cols; ++j) {
            const float e = k.exponential(cosine[j], 1);
            sum += e;
            column_sum[j] += e;
        }
    } else {
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < cols; ++j) sum += k.exponential(cosine[j], 1);
    }
    return sum;
}

SSLFAST_MULTIVERSION
float row_maximum(const float* cosine, int64_t cols, float* column) {
    float largest = kLeast;
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < cols; ++j) largest = cosine[j] > largest ? cosine[j] : largest;
    if (column) {
#pragma omp simd
        for (int64_t j = 0; j < cols; ++j) column[j] = cosine[j] > column[j] ? cosine[j] : column[j];
    }
    return largest;
}

SSLFAST_MULTIVERSION
float running_row(const float* cosine, int64_t cols, Inverse k, float row, const float* column, float* column_sum) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < cols; ++j) sum += k.exponential(cosine[j], row);
    if (column_sum) {
#pragma omp simd
        for (int64_t j = 0; j < cols; ++j) column_sum[j] += k.exponential(cosine[j], column[j]);
    }
    return sum;
}

// (maximum, sum) of two parts of a row become those of their union.
inline void merge(float* maximum, double* sum, float part_maximum, double part_sum, double inverse_tau) {
    const float top = std::max(*maximum, part_maximum);
    *sum = *sum * std::exp((*maximum - top) * inverse_tau) + part_sum * std::exp((part_maximum - top) * inverse_tau);
    *maximum = top;
}

SSLFAST_MULTIVERSION
void fixed_weights(float* cosine, int64_t cols, Inverse k, float a_i, const float* a) {
#pragma omp simd
    for (int64_t j = 0; j < cols; ++j) cosine[j] = k.exponential(cosine[j], 1) * (a_i + a[j]);
}

SSLFAST_MULTIVERSION
void running_weights(float* cosine, int64_t cols, Inverse k, float a_i, float row, const float* a, const float* column) {
#pragma omp simd
    for (int64_t j = 0; j < cols; ++j)
        cosine[j] = a_i * k.exponential(cosine[j], row) + a[j] * k.exponential(cosine[j], column[j]);
}

// du + weight * other, and its product with u.
SSLFAST_MULTIVERSION
float add_positive(float* du, const float* u, int64_t dim, float weight, const float* other) {
    float along = 0;
#pragma omp simd reduction(+ : along)
    for (int64_t d = 0; d < dim; ++d) {
        du[d] += weight * other[d];
        along += du[d] * u[d];
    }
    return along;
}

SSLFAST_MULTIVERSION
void project_row(float* du, const float* u, int64_t dim, float along, float factor) {
#pragma omp simd
    for (int64_t d = 0; d < dim; ++d) du[d] = (du[d] - along * u[d]) * factor;
}

}  // namespace

void nt_xent_normalize(const float* z, int64_t rows, int64_t dim, float* u, float* scale) {
#pragma omp parallel for schedule(static) if (rows * dim > 16384)
    for (int64_t i = 0; i < rows; ++i) normalize_row(z + i * dim, dim, u + i * dim, scale + i);
}

int64_t nt_xent_workspace(int64_t rows, int64_t cols) { return (rows + kBlockRows - 1) / kBlockRows * cols * 2; }

void nt_xent_forward_tile(float* cosine, int64_t rows, int64_t cols, int64_t i0, int64_t j0, int64_t pairs,
                          double inverse_tau, bool fixed, float* positive, float* maximum, double* sum,
                          float* workspace) {
    const bool diagonal = i0 == j0;
    const Inverse k(inverse_tau);
    const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
    float* column_sums = workspace;                    // (blocks, cols)
    float* column_maxima = workspace + blocks * cols;  // (blocks, cols)

#pragma omp parallel for schedule(static) if (rows * cols > 8192)
    for (int64_t block = 0; block < blocks; ++block) {
        const int64_t first = block * kBlockRows, last = std::min(rows, first + kBlockRows);
        float* column_sum = diagonal ? nullptr : column_sums + block * cols;
        float* column_maximum = diagonal || fixed ? nullptr : column_maxima + block * cols;
        if (column_sum) std::fill_n(column_sum, cols, 0.0f);
        if (column_maximum) std::fill_n(column_maximum, cols, kLeast);
        float row_maxima[kBlockRows];
        for (int64_t i = first; i < last; ++i) {
            float* row = cosine + i * cols;
            drop(row, i0 + i, i0, j0, cols, pairs, positive);
            if (!fixed) row_maxima[i - first] = row_maximum(row, cols, column_maximum);
        }
        for (int64_t i = first; i < last; ++i) {
            const float* row = cosine + i * cols;
            if (fixed) {
                sum[i0 + i] += fixed_row(row, cols, k, column_sum);
            } else {
                const float top = row_maxima[i - first];
                merge(maximum + i0 + i, sum + i0 + i, top, running_row(row, cols, k, top, column_maximum, column_sum),
                      inverse_tau);
            }
        }
    }
    if (diagonal) return;
#pragma omp parallel for schedule(static) if (blocks * cols > 8192)
    for (int64_t j = 0; j < cols; ++j) {
        if (fixed) {
            double total = 0;
            for (int64_t block = 0; block < blocks; ++block) total += column_sums[block * cols + j];
            sum[j0 + j] += total;
        } else {
            for (int64_t block = 0; block < blocks; ++block)
                merge(maximum + j0 + j, sum + j0 + j, column_maxima[block * cols + j], column_sums[block * cols + j],
                      inverse_tau);
        }
    }
}

void nt_xent_losses(int64_t rows, double inverse_tau, const float* positive, const float* maximum, const double* sum,
                    float* loss, float* inverse_sum) {
    for (int64_t i = 0; i < rows; ++i) {
        const double above = (double(maximum[i]) - positive[i]) * inverse_tau;
        // Beyond the range of exp the 1 is lost anyway.
        loss[i] = float(above > 700 ? above + std::log(sum[i]) : std::log1p(sum[i] * std::exp(above)));
        inverse_sum[i] = float(1 / (sum[i] + std::exp(-above)));
    }
}

void nt_xent_backward_tile(float* cosine, int64_t rows, int64_t cols, int64_t i0, int64_t j0, int64_t pairs,
                           double inverse_tau, bool fixed, const float* scaled_grad, const float* maximum) {
    const Inverse k(inverse_tau);
#pragma omp parallel for schedule(static) if (rows * cols > 8192)
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t i = i0 + r;
        float* row = cosine + r * cols;
        drop(row, i, i0, j0, cols, pairs, nullptr);
        if (fixed)
            fixed_weights(row, cols, k, scaled_grad[i], scaled_grad + j0);
        else
            running_weights(row, cols, k, scaled_grad[i], maximum[i], scaled_grad + j0, maximum + j0);
    }
}

double nt_xent_project(float* du, const float* u, const float* scale, const float* grad, const float* loss,
                       int64_t pairs, int64_t dim, double inverse_tau) {
    const int64_t rows = 2 * pairs;
    std::vector<double> radial(rows);
#pragma omp parallel for schedule(static) if (rows * dim > 16384)
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t partner = i < pairs ? i + pairs : i - pairs;
        const float weight = grad[i] * std::expm1(-loss[i]) + grad[partner] * std::expm1(-loss[partner]);
        const float along = add_positive(du + i * dim, u + i * dim, dim, weight, u + partner * dim);
        radial[i] = along;
        // The factor of a row shorter than eps is constant: nothing to project out.
        project_row(du + i * dim, u + i * dim, dim, scale[i] < 1 / kEps ? along : 0, scale[i] * float(inverse_tau));
    }
    double total = 0;
    for (const double r : radial) total += r;
    return -total * inverse_tau * inverse_tau / 2;
}

}  // namespace sslfast::cpu
