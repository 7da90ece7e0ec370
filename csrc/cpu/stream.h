// Stores past the caches, for results too large to be found there again: a usual store first reads the line it writes to.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "common/inline.h"

namespace sslfast::cpu {

constexpr int64_t kStreamBytes = 1 << 23;  // a result from this size on is written past the caches

// Copies to memory of any alignment; a null `from` is zero.
SSLFAST_INLINE void stream(char* to, const char* from, int64_t bytes) {
    const auto plain = [](char* at, const char* source, int64_t count) {
        source ? std::memcpy(at, source, count) : std::memset(at, 0, count);
    };
#ifdef __x86_64__
    const int64_t head = -reinterpret_cast<intptr_t>(to) & 31;
    if (bytes >= head + 32) {
        plain(to, from, head);
        int64_t i = head;
        for (; i + 32 <= bytes; i += 32) {
            __m128i low = _mm_setzero_si128(), high = low;
            if (from) {
                std::memcpy(&low, from + i, 16);
                std::memcpy(&high, from + i + 16, 16);
            }
            _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), low);
            _mm_stream_si128(reinterpret_cast<__m128i*>(to + i + 16), high);
        }
        return plain(to + i, from ? from + i : nullptr, bytes - i);
    }
#endif
    plain(to, from, bytes);
}

// Copies; past the caches if `streamed`.
SSLFAST_INLINE void put(bool streamed, char* to, const char* from, int64_t bytes) {
    if (streamed) return stream(to, from, bytes);
    from ? std::memcpy(to, from, bytes) : std::memset(to, 0, bytes);
}

// After the last of a thread's streams, before another thread may read what it wrote.
SSLFAST_INLINE void end_streams() {
#ifdef __x86_64__
    _mm_sfence();
#endif
}

}  // namespace sslfast::cpu
