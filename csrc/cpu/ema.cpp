#include "cpu/ema.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "common/simd.h"

namespace sslfast::cpu {
namespace {

constexpr int64_t kChunk = 1 << 15;  // elements a thread takes at a time; a multiple of kBlock
constexpr int kGroups = 16, kBlock = 8 * kGroups;

// Elements [first, last) of one pair.
template <typename Target, typename Source>
SSLFAST_INLINE void update(const EmaPair& pair, int64_t first, int64_t last, Blend blend, uint32_t tensor,
                           uint64_t step) {
    Target* target = static_cast<Target*>(pair.target);
    const Source* source = static_cast<const Source*>(pair.source);
    if constexpr (!std::is_same_v<Target, float>) {
        for (int64_t i = first; i < last; i += kBlock) {
            alignas(64) Words words[kGroups];
            alignas(64) uint16_t noise[kBlock];
#pragma omp simd
            for (int g = 0; g < kGroups; ++g) words[g] = rounding_noise(uint64_t(i / 8 + g), tensor, step);
            std::memcpy(noise, words, sizeof(noise));  // little-endian: the lower half of a word comes first
            const int size = int(std::min<int64_t>(kBlock, last - i));
#pragma omp simd
            for (int j = 0; j < size; ++j)
                store(target + i + j, blend(to_float(target[i + j]), to_float(source[i + j])), uint32_t(noise[j]));
        }
    } else {
        // Where nothing is converted 256 bits saturate the memory; stores of 512 are slower on some processors.
        constexpr int kLanes = sizeof(Target) + sizeof(Source) == 8 ? 8 : 32;
#pragma omp simd simdlen(kLanes)
        for (int64_t i = first; i < last; ++i) store(target + i, blend(to_float(target[i]), to_float(source[i])));
    }
}

void update_chunk(const EmaPair& pair, int64_t first, int64_t last, Blend blend, uint32_t tensor, uint64_t step) {
    with_types(pair.types, [&](auto target, auto source) {
        update<decltype(target), decltype(source)>(pair, first, last, blend, tensor, step);
    });
}

}  // namespace

void ema_update(const EmaPair* pairs, int64_t count, double momentum, uint64_t step) {
    const Blend blend(momentum);
    std::vector<int64_t> ends(count);  // the chunks of all tensors in one row
    int64_t chunks = 0;
    for (int64_t k = 0; k < count; ++k) ends[k] = chunks += (pairs[k].size + kChunk - 1) / kChunk;
#pragma omp parallel for schedule(dynamic) if (chunks > 1)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const int64_t k = std::upper_bound(ends.begin(), ends.end(), chunk) - ends.begin();
        const int64_t first = (chunk - (k ? ends[k - 1] : 0)) * kChunk;
        update_chunk(pairs[k], first, std::min(pairs[k].size, first + kChunk), blend, uint32_t(k), step);
    }
}

}  // namespace sslfast::cpu
