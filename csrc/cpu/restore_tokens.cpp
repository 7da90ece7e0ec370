#include "cpu/restore_tokens.h"

#include <algorithm>

#include "common/simd.h"
#include "cpu/rows.h"
#include "cpu/stream.h"

namespace sslfast::cpu {
namespace {

constexpr int64_t kParts = 64;  // of the tokens, summed apart; fixed, so sums do not depend on the threads

template <typename From, typename To>
SSLFAST_INLINE void add(const void* x, const float* pos, int64_t dim, void* out) {
#pragma omp simd
    for (int64_t d = 0; d < dim; ++d)
        store(static_cast<To*>(out) + d, to_float(static_cast<const From*>(x)[d]) + pos[d]);
}

// A row plus its position; the mask token is of float32 whatever the type of the others.
void add_row(const void* x, bool masked, int type, const float* pos, int64_t dim, void* out) {
    with_type(type, [&](auto zero) {
        using T = decltype(zero);
        masked ? add<float, T>(x, pos, dim, out) : add<T, T>(x, pos, dim, out);
    });
}

void accumulate_row(const void* x, int type, int64_t dim, double* sum) {
    with_type(type, [&](auto zero) {
        const auto* from = static_cast<const decltype(zero)*>(x);
#pragma omp simd
        for (int64_t d = 0; d < dim; ++d) sum[d] += double(to_float(from[d]));
    });
}

}  // namespace

void restore_tokens(const void* visible, int type, const int64_t* restore, const float* mask_token, const float* pos,
                    int64_t batch, int64_t tokens, int64_t kept, int64_t dim, void* out) {
    const int64_t bytes = dim * kSizes[type];
    const std::vector<float> zero(pos ? 0 : dim, -0.0f);  // changes nothing when added
    const bool streamed = batch * tokens * bytes >= kStreamBytes;
#pragma omp parallel if (batch * tokens * bytes > kSerialBytes)
    {
        std::vector<char> line(streamed ? bytes : 0);
#pragma omp for schedule(dynamic, rows_at_once(bytes))
        for (int64_t row = 0; row < batch * tokens; ++row) {
            const bool masked = restore[row] >= kept;
            const char* from = static_cast<const char*>(visible) + (row / tokens * kept + restore[row]) * bytes;
            const float* at = pos ? pos + row % tokens * dim : zero.data();
            char* to = static_cast<char*>(out) + row * bytes;
            add_row(masked ? static_cast<const void*>(mask_token) : from, masked, type, at, dim,
                    streamed ? line.data() : to);
            if (streamed) stream(to, line.data(), bytes);
        }
        end_streams();
    }
}

bool restore_tokens_backward(const void* grad, int type, const int64_t* restore, int64_t batch, int64_t tokens,
                             int64_t kept, int64_t dim, void* dvisible, float* dmask, float* dpos) {
    const std::vector<int32_t> source = inverse_of(restore, batch, tokens, kept);
    if (source.empty()) return false;
    const int64_t bytes = dim * kSizes[type];
    for (int64_t row = 0; row < batch * kept; ++row)
        if (source[row] < 0) std::memset(static_cast<char*>(dvisible) + row * bytes, 0, bytes);
    // Token by token where the sums over images are wanted, else in the order of memory.
    const int64_t rows = batch * tokens, parts = std::min(kParts, dpos ? tokens : rows);
    std::vector<double> masked(parts * dim, 0.0);
    const auto take = [&](int64_t row, double* sum, double* all) {
        const char* from = static_cast<const char*>(grad) + row * bytes;
        const int64_t k = restore[row];
        if (k < kept)
            std::memcpy(static_cast<char*>(dvisible) + (row / tokens * kept + k) * bytes, from, bytes);
        else
            accumulate_row(from, type, dim, sum);
        if (all) accumulate_row(from, type, dim, all);
    };
#pragma omp parallel for schedule(dynamic) if (rows * bytes > kSerialBytes)
    for (int64_t part = 0; part < parts; ++part) {
        double* sum = masked.data() + part * dim;
        if (!dpos) {
            for (int64_t row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
                prefetch(static_cast<const char*>(grad) + std::min(row + 2, rows - 1) * bytes, bytes);
                take(row, sum, nullptr);
            }
            continue;
        }
        std::vector<double> all(dim);
        for (int64_t l = tokens * part / parts; l < tokens * (part + 1) / parts; ++l) {
            std::fill(all.begin(), all.end(), 0.0);
            for (int64_t row = l; row < rows; row += tokens) {
                prefetch(static_cast<const char*>(grad) + std::min(row + 2 * tokens, rows - 1) * bytes, bytes);
                take(row, sum, all.data());
            }
            std::copy(all.begin(), all.end(), dpos + l * dim);
        }
    }
    for (int64_t part = 1; part < parts; ++part)
        for (int64_t d = 0; d < dim; ++d) masked[d] += masked[part * dim + d];
    std::copy_n(masked.begin(), dim, dmask);
    return true;
}

}  // namespace sslfast::cpu
