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

#ifdef __x86_64__
// What the processor moves at a time to and from memory.
struct Line {
#if defined(__AVX512F__)
    __m512i data;

    SSLFAST_INLINE void stream(void* to) const { _mm512_stream_si512(static_cast<__m512i*>(to), data); }
#elif defined(__AVX__)
    __m256i data[2];

    SSLFAST_INLINE void stream(void* to) const {
        for (int i = 0; i < 2; ++i) _mm256_stream_si256(static_cast<__m256i*>(to) + i, data[i]);
    }
#else
    __m128i data[4];

    SSLFAST_INLINE void stream(void* to) const {
        for (int i = 0; i < 4; ++i) _mm_stream_si128(static_cast<__m128i*>(to) + i, data[i]);
    }
#endif
};
#endif

// Copies to memory of any alignment; a null `from` is zero.
SSLFAST_INLINE void stream(char* to, const char* from, int64_t bytes) {
    const auto plain = [](char* at, const char* source, int64_t count) {
        source ? std::memcpy(at, source, count) : std::memset(at, 0, count);
    };
#ifdef __x86_64__
    const int64_t head = -reinterpret_cast<intptr_t>(to) & 63;
    if (bytes >= head + 64) {
        plain(to, from, head);
        int64_t i = head;
        for (; i + 64 <= bytes; i += 64) {
            Line line{};
            if (from) std::memcpy(&line, from + i, sizeof line);
            line.stream(to + i);
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
