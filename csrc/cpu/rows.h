// Rows of elements: how they are stored, copied, and told from one another.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/half.h"

namespace sslfast::cpu {

// By the type that Python names; bytes are found in images only.
constexpr int kFloat32 = 0, kBfloat16 = 1;
constexpr int64_t kSizes[] = {4, 2, 2, 1};  // bytes of an element

// Asks for memory that the processor would not guess.
inline void prefetch(const void* data, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char*>(data) + at);
}

constexpr int64_t kSerialBytes = 1 << 15;  // a loop over less than this is not worth waking threads for
constexpr int64_t kTaskBytes = 1 << 16;    // that a thread takes at a time

// Rows that a thread takes at a time, as it comes free: one that has lost its core holds up nobody but with these.
inline int64_t rows_at_once(int64_t bytes) { return std::max<int64_t>(1, kTaskBytes / std::max<int64_t>(bytes, 1)); }

SSLFAST_INLINE float to_float(uint8_t x) { return float(x); }
using sslfast::store;
using sslfast::to_float;

// The places where each of `values` numbers stands in a row of `indices`, -1 where none does, for every one of the rows.
// Empty if a number stands in a row twice.
inline std::vector<int32_t> inverse_of(const int64_t* indices, int64_t rows, int64_t columns, int64_t values) {
    std::vector<int32_t> inverse(rows * values, -1);
    bool twice = false;
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t j = 0; j < columns; ++j) {
            const int64_t value = indices[row * columns + j];
            if (value < 0 || value >= values) continue;
            int32_t& place = inverse[row * values + value];
            twice = twice || place >= 0;
            place = int32_t(j);
        }
    if (twice) inverse.clear();
    return inverse;
}

}  // namespace sslfast::cpu
