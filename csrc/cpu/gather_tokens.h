// Rows of tokens, copied as bytes: picked by index, or spread over zeros.
#pragma once

#include <cstdint>

namespace sslfast::cpu {

// out[b, k] = tokens[b, keep[b, k]], rows of `bytes` bytes; the strides of tokens are in bytes, keep is in range.
void gather_tokens(const char* tokens, int64_t stride_b, int64_t stride_l, const int64_t* keep, int64_t batch,
                   int64_t kept, int64_t bytes, char* out);

// out[b, l] = grad[b, k] where keep[b, k] = l, else zero.
bool spread_tokens(const char* grad, const int64_t* keep, int64_t batch, int64_t kept, int64_t tokens, int64_t bytes,
                   char* out);

}  // namespace sslfast::cpu
