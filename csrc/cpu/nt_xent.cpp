#include "cpu/nt_xent.h"

#include "cpu/contrastive.h"

namespace sslfast::cpu {
namespace {

constexpr int64_t kBlockRows = 16;  // rows a thread takes at a time; fixed, so sums do not depend on the threads

}  // namespace

int64_t nt_xent_workspace(int64_t rows, int64_t cols) { return (rows + kBlockRows - 1) / kBlockRows * cols * 2; }

void nt_xent_forward_tile(float* cosine, int64_t rows, int64_t cols, int64_t i0, int64_t j0, int64_t pairs,
                          double inverse_tau, bool fixed, float* positive, float* maximum, double* sum,
                          float* workspace) {
    const bool diagonal = i0 == j0;
    const Inverse k(inverse_tau);
    const Omitted omitted{true, pairs};
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
            const int64_t partner = omitted.drop(row, i0 + i, j0, cols, positive + i0 + i);
            if (partner >= 0 && !diagonal) positive[j0 + partner] = positive[i0 + i];
            if (!fixed) row_maxima[i - first] = row_maximum(row, cols, column_maximum);
        }
        for (int64_t i = first; i < last; ++i) {
            const float* row = cosine + i * cols;
            if (fixed) {
                sum[i0 + i] += fixed_row_sum(row, cols, k, column_sum);
            } else {
                const float top = row_maxima[i - first];
                const float part = running_row_sum(row, cols, k, top, column_maximum, column_sum);
                merge(maximum + i0 + i, sum + i0 + i, top, part, inverse_tau);
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

}  // namespace sslfast::cpu
