#include "cpu/contrastive.h"

#include <vector>

namespace sslfast::cpu {
namespace {

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

// A row becomes its exponentials; returns their sum.
float exponentials(float* cosine, int64_t cols, Inverse k, float shift) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < cols; ++j) {
        cosine[j] = k.exponential(cosine[j], shift);
        sum += cosine[j];
    }
    return sum;
}

void fixed_weights(float* cosine, int64_t cols, Inverse k, float a_i, const float* b) {
#pragma omp simd
    for (int64_t j = 0; j < cols; ++j) cosine[j] = k.exponential(cosine[j], 1) * (a_i + b[j]);
}

void running_weights(float* cosine, int64_t cols, Inverse k, float a_i, float m_i, const float* b, const float* n) {
#pragma omp simd
    for (int64_t j = 0; j < cols; ++j)
        cosine[j] = a_i * k.exponential(cosine[j], m_i) + b[j] * k.exponential(cosine[j], n[j]);
}

// du + weight * positive, and its product with u.
float add_positive(float* du, const float* u, int64_t dim, float weight, const float* positive) {
    float along = 0;
#pragma omp simd reduction(+ : along)
    for (int64_t d = 0; d < dim; ++d) {
        du[d] += weight * positive[d];
        along += du[d] * u[d];
    }
    return along;
}

void project_row(float* du, const float* u, int64_t dim, float along, float factor) {
#pragma omp simd
    for (int64_t d = 0; d < dim; ++d) du[d] = (du[d] - along * u[d]) * factor;
}

}  // namespace

void normalize_rows(const float* z, int64_t rows, int64_t dim, float* u, float* scale) {
#pragma omp parallel for schedule(static) if (rows * dim > 16384)
    for (int64_t i = 0; i < rows; ++i) normalize_row(z + i * dim, dim, u + i * dim, scale + i);
}

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

float fixed_row_sum(const float* cosine, int64_t cols, Inverse k, float* column_sum) {
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

float running_row_sum(const float* cosine, int64_t cols, Inverse k, float row, const float* column, float* column_sum) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < cols; ++j) sum += k.exponential(cosine[j], row);
    if (column_sum) {
#pragma omp simd
        for (int64_t j = 0; j < cols; ++j) column_sum[j] += k.exponential(cosine[j], column[j]);
    }
    return sum;
}

void softmax_tile(float* cosine, int64_t rows, int64_t cols, int64_t i0, int64_t j0, Omitted omitted,
                  double inverse_tau, bool fixed, float* maximum, double* sum, float* rescale) {
    const Inverse k(inverse_tau);
#pragma omp parallel for schedule(static) if (rows * cols > 8192)
    for (int64_t i = 0; i < rows; ++i) {
        float* row = cosine + i * cols;
        omitted.drop(row, i0 + i, j0, cols);
        const float before = maximum[i];
        if (!fixed) maximum[i] = std::max(before, row_maximum(row, cols, nullptr));
        const double factor = std::exp((double(before) - maximum[i]) * inverse_tau);
        sum[i] = sum[i] * factor + exponentials(row, cols, k, maximum[i]);
        rescale[i] = float(factor);
    }
}

void weights_tile(float* cosine, int64_t rows, int64_t cols, int64_t i0, int64_t j0, Omitted omitted,
                  double inverse_tau, bool fixed, const float* a, const float* m, const float* b, const float* n) {
    const Inverse k(inverse_tau);
#pragma omp parallel for schedule(static) if (rows * cols > 8192)
    for (int64_t i = 0; i < rows; ++i) {
        float* row = cosine + i * cols;
        omitted.drop(row, i0 + i, j0, cols);
        if (fixed)
            fixed_weights(row, cols, k, a[i], b);
        else
            running_weights(row, cols, k, a[i], m[i], b, n);
    }
}

void contrastive_losses(int64_t rows, double inverse_tau, const float* positive, float* maximum, const double* sum,
                        float* loss, float* inverse_sum) {
    for (int64_t i = 0; i < rows; ++i) {
        const double above = (double(maximum[i]) - positive[i]) * inverse_tau;
        // Beyond the range of exp the 1 is lost anyway.
        loss[i] = float(above > 700 ? above + std::log(sum[i]) : std::log1p(sum[i] * std::exp(above)));
        if (above < 0) maximum[i] = positive[i];
        inverse_sum[i] = float(1 / (sum[i] * std::exp(std::min(above, 0.0)) + std::exp(-std::max(above, 0.0))));
    }
}

double project_rows(float* du, const float* u, const float* positive, const float* scale, const float* weight,
                    int64_t rows, int64_t dim, double inverse_tau) {
    std::vector<double> radial(rows);
#pragma omp parallel for schedule(static) if (rows * dim > 16384)
    for (int64_t i = 0; i < rows; ++i) {
        const int64_t at = i * dim;
        const float along = add_positive(du + at, u + at, dim, weight[i], positive + at);
        radial[i] = along;
        // The factor of a row shorter than eps is constant: nothing to project out.
        project_row(du + at, u + at, dim, scale[i] < 1 / kEps ? along : 0, scale[i] * float(inverse_tau));
    }
    double total = 0;
    for (const double r : radial) total += r;
    return total;
}

}  // namespace sslfast::cpu
