// What the contrastive losses share on the CPU: a softmax that streams over tiles of cosines, which GEMMs make, and the
// passes from raw rows onto the unit sphere and back.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "common/simd.h"

namespace sslfast::cpu {

inline constexpr float kEps = 1e-12f;      // of F.normalize
inline constexpr float kLeast = -2;        // below every cosine
inline constexpr float kDropped = -3e38f;  // its exponential is zero; an infinity would meet its opposite in the low part

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

// (maximum, sum) of two parts of a row become those of their union.
inline void merge(float* maximum, double* sum, float part_maximum, double part_sum, double inverse_tau) {
    const float top = std::max(*maximum, part_maximum);
    *sum = *sum * std::exp((*maximum - top) * inverse_tau) + part_sum * std::exp((part_maximum - top) * inverse_tau);
    *maximum = top;
}

// The pairs that are no negatives: of row i those with columns i, if `itself`, and its partner i ± pairs, if pairs > 0.
struct Omitted {
    bool itself;
    int64_t pairs;

    // Takes them out of the row of a tile whose columns begin at j0; where the partner is in there, or -1.
    int64_t drop(float* row, int64_t i, int64_t j0, int64_t cols, float* positive = nullptr) const {
        if (itself && i >= j0 && i < j0 + cols) row[i - j0] = kDropped;
        const int64_t partner = (i < pairs ? i + pairs : i - pairs) - j0;
        if (pairs == 0 || partner < 0 || partner >= cols) return -1;
        if (positive) *positive = row[partner];
        row[partner] = kDropped;
        return partner;
    }
};

// z (rows, dim) -> unit rows u and their scale factors; a zero row has scale 0, a row shorter than 1e-12 has 1e12.
void normalize_rows(const float* z, int64_t rows, int64_t dim, float* u, float* scale);

// The largest cosine of a row, also folded into the maxima of the columns unless null.
float row_maximum(const float* cosine, int64_t cols, float* column);

// The sum of exp((cosine - 1)/tau) over a row; each exponential joins the sum of its column too, unless null.
float fixed_row_sum(const float* cosine, int64_t cols, Inverse k, float* column_sum);

// The same relative to the maximum of the row, and for the columns to theirs.
float running_row_sum(const float* cosine, int64_t cols, Inverse k, float row, const float* column, float* column_sum);

// One tile of cosines, rows i0.. against columns j0..: folds the exponentials of its negatives into the running
// (maximum cosine, sum of exponentials above it) of its rows. With `fixed` the maximum is 1 for every row: |cosine| <= 1,
// so nothing overflows. The tile becomes these exponentials, relative to the new maxima; `rescale` (rows) is what turns
// sums relative to the old maxima into such.
void softmax_tile(float* cosine, int64_t rows, int64_t cols, int64_t i0, int64_t j0, Omitted omitted,
                  double inverse_tau, bool fixed, float* maximum, double* sum, float* rescale);

// Replaces a tile of cosines by the weights of its negatives, a_i exp((c_ij - m_i)/tau) + b_j exp((c_ij - n_j)/tau);
// all others become zero. a, m belong to the rows, b, n to the columns; with `fixed` all m and n are 1.
void weights_tile(float* cosine, int64_t rows, int64_t cols, int64_t i0, int64_t j0, Omitted omitted,
                  double inverse_tau, bool fixed, const float* a, const float* m, const float* b, const float* n);

// loss = log(1 + sum of the negatives / the positive), exact also where it is tiny. The maximum comes to include the
// positive, and inverse_sum is what turns exp((cosine - maximum)/tau) into probabilities P. (A log-sum-exp in fp32 would
// round P by its own magnitude.)
void contrastive_losses(int64_t rows, double inverse_tau, const float* positive, float* maximum, const double* sum,
                        float* loss, float* inverse_sum);

// du (rows, dim), the negatives' part of tau times the gradient to unit rows u, becomes the gradient to the raw rows;
// returns the sum of u_i·du_i. The positives join here, row i with weight_i: by far the largest, and added last they do
// not coarsen the sum of the others.
double project_rows(float* du, const float* u, const float* positive, const float* scale, const float* weight,
                    int64_t rows, int64_t dim, double inverse_tau);

}  // namespace sslfast::cpu
