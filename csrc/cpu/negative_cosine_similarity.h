// Minus the cosine of each row of p (rows, dim) with the same row of z, and its gradients, in one pass over both.
#pragma once

#include <cstdint>

namespace sslfast::cpu {

// `type` of p, z and their gradients: 0 float32, 1 bfloat16, 2 float16. Rows are divided by max(length, 1e-12).
void negative_cosine_similarity(const void* p, const void* z, int type, int64_t rows, int64_t dim, float* loss);

// dp and dz, where not null, get the gradients of sum_i grad_i * loss_i; that of a zero row is zero.
void negative_cosine_similarity_backward(const float* grad, const void* p, const void* z, int type, int64_t rows,
                                         int64_t dim, void* dp, void* dz);

}  // namespace sslfast::cpu
