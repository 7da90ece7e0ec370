#include "cpu/gather_tokens.h"

#include "cpu/rows.h"

namespace sslfast::cpu {

void gather_tokens(const char* tokens, int64_t stride_b, int64_t stride_l, const int64_t* keep, int64_t batch,
                   int64_t kept, int64_t bytes, char* out) {
#pragma omp parallel for if (batch * kept * bytes > kSerialBytes)
    for (int64_t row = 0; row < batch * kept; ++row)
        std::memcpy(out + row * bytes, tokens + row / kept * stride_b + keep[row] * stride_l, bytes);
}

void spread_tokens(const char* grad, const int64_t* keep, int64_t batch, int64_t kept, int64_t tokens, int64_t bytes,
                   char* out) {
    const std::vector<int32_t> source = inverse_of(keep, batch, kept, tokens);
#pragma omp parallel for if (batch * tokens * bytes > kSerialBytes)
    for (int64_t row = 0; row < batch * tokens; ++row) {
        if (source[row] < 0)
            std::memset(out + row * bytes, 0, bytes);
        else
            std::memcpy(out + row * bytes, grad + (row / tokens * kept + source[row]) * bytes, bytes);
    }
}

}  // namespace sslfast::cpu
