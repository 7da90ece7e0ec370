// InfoNCE of N queries and their keys, against a queue of negatives or the other keys, without their logits.
#pragma once

#include <cstdint>

#include "cpu/contrastive.h"

namespace sslfast::cpu {

// query, key (n, dim) -> loss, shift, inverse_sum (n), `unit` and scale (2 n) of the queries, then of the keys; P_ij =
// exp((q_i·n_j - shift_i)/tau) * inverse_sum_i. The negatives n are the rows of the queue, or without one the other keys.
// Unless null, mean (n, dim) = the sum over j of P_ij n_j. `kept` is the same for both passes.
void info_nce_forward(const Rows& query, const Rows& key, int64_t n, const Rows* queue, int64_t queue_rows, double tau,
                      float* loss, float* shift, float* inverse_sum, const Rows* mean, const Rows& unit, float* scale,
                      const Kept& kept);

// dquery, and unless null dkey, (n, dim): the gradients of sum_i grad_i * loss_i; returns that of tau.
double info_nce_backward(const float* grad, const Rows& unit, const float* scale, const float* loss, const float* shift,
                         const float* inverse_sum, const Rows& mean, const Kept& kept, int64_t n, double tau,
                         bool in_batch, const Rows& dquery, const Rows* dkey);

}  // namespace sslfast::cpu
