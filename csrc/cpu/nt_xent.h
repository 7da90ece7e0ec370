// NT-Xent of the 2 N views of N images: the upper triangle of their cosines, tile by tile, never held. CLIP's loss is the
// same with the pairs `across` the views alone: a square of cosines.
#pragma once

#include <cstdint>

#include "cpu/contrastive.h"

namespace sslfast::cpu {

// z1, z2 (n, dim) -> loss, shift, inverse_sum, scale (2 n), `unit` (2 n, dim), P_ij = exp((u_i·u_j - shift_i)/tau) *
// inverse_sum_i. Unless null, rank (2 n) counts the negatives that are closer than the positive. `kept` is the same for both
// passes.
void nt_xent_forward(const Rows& z1, const Rows& z2, int64_t n, bool across, double tau, float* loss, float* shift,
                     float* inverse_sum, const Rows& unit, float* scale, int64_t* rank, const Kept& kept);

// dz (2 n, dim), the gradient of sum_i grad_i * loss_i; returns that of tau.
double nt_xent_backward(const float* grad, const Rows& unit, const float* scale, const float* loss, const float* shift,
                        const float* inverse_sum, const Kept& kept, int64_t n, bool across, double tau, const Rows& dz);

}  // namespace sslfast::cpu
