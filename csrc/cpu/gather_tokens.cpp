#include "cpu/gather_tokens.h"

#include "cpu/rows.h"
#include "cpu/stream.h"

namespace sslfast::cpu {

void gather_tokens(const char* tokens, int64_t stride_b, int64_t stride_l, const int64_t* keep, int64_t batch,
                   int64_t kept, int64_t bytes, char* out) {
    const bool streamed = batch * kept * bytes >= kStreamBytes;
#pragma omp parallel if (batch * kept * bytes > kSerialBytes)
    {
#pragma omp for schedule(dynamic, rows_at_once(bytes))
        for (int64_t row = 0; row < batch * kept; ++row)
            put(streamed, out + row * bytes, tokens + row / kept * stride_b + keep[row] * stride_l, bytes);
        end_streams();
    }
}

bool spread_tokens(const char* grad, const int64_t* keep, int64_t batch, int64_t kept, int64_t tokens, int64_t bytes,
                   char* out) {
    const std::vector<int32_t> source = inverse_of(keep, batch, kept, tokens);
    if (source.empty()) return false;
    const bool streamed = batch * tokens * bytes >= kStreamBytes;
#pragma omp parallel if (batch * tokens * bytes > kSerialBytes)
    {
#pragma omp for schedule(dynamic, rows_at_once(bytes))
        for (int64_t row = 0; row < batch * tokens; ++row) {
            const char* from = source[row] < 0 ? nullptr : grad + (row / tokens * kept + source[row]) * bytes;
            put(streamed, out + row * bytes, from, bytes);
        }
        end_streams();
    }
    return true;
}

}  // namespace sslfast::cpu
