// Philox 4x32-10, the counter-based generator of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3").
#pragma once

#include <cstdint>

#include "common/inline.h"

namespace sslfast {

struct Words {
    uint32_t x[4];
};

// Four words that look random: a function of a counter and a key alone, so any order and any device gives the same.
SSLFAST_INLINE Words philox(Words counter, uint64_t key) {
    uint32_t key0 = uint32_t(key), key1 = uint32_t(key >> 32);
    // Each word in 64 bits, of which the upper 32 are zero: so SIMD need not widen for the products.
    uint64_t x0 = counter.x[0], x1 = counter.x[1], x2 = counter.x[2], x3 = counter.x[3];
    SSLFAST_UNROLL
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = 0xD2511F53u * x0, b = 0xCD9E8D57u * x2;
        x0 = (b >> 32) ^ x1 ^ key0;
        x1 = b & 0xFFFFFFFFu;
        x2 = (a >> 32) ^ x3 ^ key1;
        x3 = a & 0xFFFFFFFFu;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return {{uint32_t(x0), uint32_t(x1), uint32_t(x2), uint32_t(x3)}};
}

}  // namespace sslfast
