// The decoder's input: visible tokens in their places, the mask token in all others, positions added.
#pragma once

#include <cstdint>

namespace sslfast::cpu {

// out[b, l] = (visible[b, restore[b, l]] if restore[b, l] < kept else mask_token) + pos[l], rows of `dim` elements of
// `type`, summed in float32; pos may be null.
void restore_tokens(const void* visible, int type, const int64_t* restore, const float* mask_token, const float* pos,
                    int64_t batch, int64_t tokens, int64_t kept, int64_t dim, void* out);

// Its gradients: dvisible in the type of grad (batch, tokens, dim), dmask (dim), dpos (tokens, dim) or null.
bool restore_tokens_backward(const void* grad, int type, const int64_t* restore, int64_t batch, int64_t tokens,
                             int64_t kept, int64_t dim, void* dvisible, float* dmask, float* dpos);

}  // namespace sslfast::cpu
