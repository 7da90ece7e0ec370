// InfoNCE of N queries and their candidates, or their keys and a queue of negatives, without the logits.
#pragma once

#include <cstdint>

#include "cpu/candidates.h"
#include "cpu/contrastive.h"

namespace sslfast::cpu {

// query (n, dim), key (m, dim) -> loss, shift, inverse_sum (n), `unit` and scale (n + m) of the queries, then of the keys;
// P_ij = exp((q_i·n_j - shift_i)/tau) * inverse_sum_i. The negatives n are the rows of the queue, or without one the
// candidates but those that the choice leaves out. Unless `normalized`, of dot products. Unless null, mean (n, dim) = the
// sum over j of P_ij n_j, and rank (n) counts the negatives that are closer than the positive. `kept` is the same for both
// passes.
void info_nce_forward(const Rows& query, const Rows& key, const Choice& choice, bool normalized, const Rows* queue,
                      int64_t queue_rows, double tau, float* loss, float* shift, float* inverse_sum, const Rows* mean,
                      const Rows& unit, float* scale, int64_t* rank, const Kept& kept);

// dquery (n, dim), and unless null dkey (m, dim): the gradients of sum_i grad_i * loss_i; returns that of tau.
double info_nce_backward(const float* grad, const Rows& unit, const float* scale, const float* loss, const float* shift,
                         const float* inverse_sum, const Rows& mean, const Kept& kept, const Choice& choice,
                         bool normalized, double tau, bool in_batch, const Rows& dquery, const Rows* dkey);

}  // namespace sslfast::cpu
