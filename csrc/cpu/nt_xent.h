// The CPU passes of nt_xent around the GEMMs: rows in and out of the sphere, and one pass over each tile of cosines.
#pragma once

#include <cstdint>

namespace sslfast::cpu {

// z (rows, dim) -> unit rows u and their scale factors; a zero row has scale 0, a row shorter than 1e-12 has 1e12.
void nt_xent_normalize(const float* z, int64_t rows, int64_t dim, float* u, float* scale);

// One tile of cosines of the upper triangle, rows i0.. against columns j0..: folds exp(cosine/tau) of its negative pairs
// into the running (maximum cosine, sum of exponentials above it) of its rows and, off the diagonal, of its columns, and
// notes the cosines of its positive pairs. With `fixed` the maximum is 1 for every row: |cosine| <= 1, so nothing
// overflows, and one exponential serves both. The tile is spent afterwards.
void nt_xent_forward_tile(float* cosine, int64_t rows, int64_t cols, int64_t i0, int64_t j0, int64_t pairs,
                          double inverse_tau, bool fixed, float* positive, float* maximum, double* sum,
                          float* workspace);

// Floats of workspace that a forward tile of this size needs.
int64_t nt_xent_workspace(int64_t rows, int64_t cols);

// loss = log(1 + sum of the negatives / the positive), exact also where it is tiny, and inverse_sum, which turns
// exp((cosine - maximum)/tau) into probabilities P. (A log-sum-exp in fp32 would round P by its own magnitude.)
void nt_xent_losses(int64_t rows, double inverse_tau, const float* positive, const float* maximum, const double* sum,
                    float* loss, float* inverse_sum);

// Replaces a tile of cosines by the weights of its negative pairs, g_i P_ij + g_j P_ji; all others become zero.
// scaled_grad is grad * inverse_sum.
void nt_xent_backward_tile(float* cosine, int64_t rows, int64_t cols, int64_t i0, int64_t j0, int64_t pairs,
                           double inverse_tau, bool fixed, const float* scaled_grad, const float* maximum);

// du (2 * pairs, dim), the product of these weights and u, becomes the gradient of the raw views; returns that of tau.
// The positives join here: their weight g_i (P_ij - 1) + g_j (P_ji - 1), P_ij - 1 = exp(-loss_i) - 1 without
// cancellation, is by far the largest, and added last it does not coarsen the sum of the others.
double nt_xent_project(float* du, const float* u, const float* scale, const float* grad, const float* loss,
                       int64_t pairs, int64_t dim, double inverse_tau);

}  // namespace sslfast::cpu
