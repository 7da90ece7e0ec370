// The forward pass of nt_xent over the upper triangle of its symmetric matrix of cosines.
#pragma once

#include <cstdint>

namespace sslfast::cpu {

// One tile of cosines, rows i0.. against columns j0.. >= i0: folds exp(cosine/tau) of its negatives into the running
// (maximum cosine, sum of exponentials above it) of its rows and, off the diagonal, of its columns, and notes the cosines
// of its positive pairs. With `fixed` the maximum is 1 for every row, and one exponential serves both. The tile is spent
// afterwards.
void nt_xent_forward_tile(float* cosine, int64_t rows, int64_t cols, int64_t i0, int64_t j0, int64_t pairs,
                          double inverse_tau, bool fixed, float* positive, float* maximum, double* sum,
                          float* workspace);

// Floats of workspace that a forward tile of this size needs.
int64_t nt_xent_workspace(int64_t rows, int64_t cols);

}  // namespace sslfast::cpu
