#include "cuda/ema.h"

#include <type_traits>

#include "cuda/check.h"

namespace sslfast::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T, int N>
struct alignas(sizeof(T) * N) Vector {
    T x[N];
};

// Elements before the first at which a vector of N may lie.
template <int N, typename T>
__device__ __forceinline__ int ahead(const T* array) {
    return (N - int(reinterpret_cast<uintptr_t>(array) / sizeof(T) % N)) % N;
}

// Elements [first, last) of one pair, by one block; first is a multiple of 8.
template <typename Target, typename Source>
__device__ __forceinline__ void update(const EmaPair& pair, int64_t first, int64_t last, Blend blend, uint32_t tensor,
                                       uint64_t step) {
    constexpr bool stochastic = !std::is_same_v<Target, float>;
    constexpr int N = 16 / (sizeof(Target) > sizeof(Source) ? sizeof(Target) : sizeof(Source));
    constexpr int kStride = kThreads * N;
    constexpr int kBatch = stochastic ? 1 : 2;  // vectors a thread has in flight; Philox needs the registers of a second
    Target* target = static_cast<Target*>(pair.target);
    const Source* source = static_cast<const Source*>(pair.source);
    __builtin_assume(__isGlobal(target));
    __builtin_assume(__isGlobal(source));

    // [begin, end) goes by vectors, the rest by single elements: all of it where the arrays are never aligned together,
    // or where a vector would straddle two groups of eight that share their noise.
    const int head = ahead<N>(target);
    const bool aligned = head == ahead<N>(source) && (head == 0 || !stochastic) && first + head <= last;
    const int64_t begin = aligned ? first + head : first;
    const int64_t end = aligned ? begin + (last - begin) / N * N : first;

    for (int64_t i = begin + threadIdx.x * N; i < end; i += kBatch * kStride) {
        Vector<Target, N> t[kBatch];
        Vector<Source, N> s[kBatch];
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
            if (i + b * kStride >= end) break;
            t[b] = *reinterpret_cast<const Vector<Target, N>*>(target + i + b * kStride);
            s[b] = *reinterpret_cast<const Vector<Source, N>*>(source + i + b * kStride);
        }
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
            const int64_t at = i + b * kStride;
            if (at >= end) break;
            Words noise = {};
            if constexpr (stochastic) noise = rounding_noise(uint64_t(at) / 8, tensor, step);
            const int place = N == 8 ? 0 : int(at % 8);
#pragma unroll
            for (int k = 0; k < N; ++k)
                store(&t[b].x[k], blend(to_float(t[b].x[k]), to_float(s[b].x[k])), noise_of(noise, place + k));
            *reinterpret_cast<Vector<Target, N>*>(target + at) = t[b];
        }
    }
    const int64_t before = begin - first, singles = before + last - end;
    for (int64_t j = threadIdx.x; j < singles; j += kThreads) {
        const int64_t i = j < before ? first + j : end + j - before;
        Words noise = {};
        if constexpr (stochastic) noise = rounding_noise(uint64_t(i) / 8, tensor, step);
        store(target + i, blend(to_float(target[i]), to_float(source[i])), noise_of(noise, int(i % 8)));
    }
}

__global__ void __launch_bounds__(kThreads, 4) ema_update_kernel(
    const EmaPair* __restrict__ pairs, const uint64_t* __restrict__ chunks, double momentum, const void* momentum_at,
    bool momentum_is_double, uint64_t step, const uint64_t* step_at) {
    const uint64_t chunk = chunks[blockIdx.x];
    const uint32_t tensor = uint32_t(chunk >> 32);
    const EmaPair pair = pairs[tensor];
    const int64_t first = int64_t(chunk & 0xFFFFFFFF) * kEmaChunk;
    const int64_t last = first + kEmaChunk < pair.size ? first + kEmaChunk : pair.size;
    if (momentum_at)
        momentum = momentum_is_double ? *static_cast<const double*>(momentum_at)
                                      : double(*static_cast<const float*>(momentum_at));
    if (step_at) step = *step_at;
    const Blend blend(momentum);
    with_types(pair.types, [&](auto target, auto source) {
        update<decltype(target), decltype(source)>(pair, first, last, blend, tensor, step);
    });
}

}  // namespace

void ema_update(const EmaPair* pairs, const uint64_t* chunks, int64_t chunk_count, double momentum,
                const void* momentum_at, bool momentum_is_double, uint64_t step, const uint64_t* step_at,
                void* stream) {
    if (chunk_count == 0) return;
    cudaLaunchConfig_t launch = {};
    launch.gridDim = dim3(unsigned(chunk_count));
    launch.blockDim = dim3(kThreads);
    launch.stream = static_cast<cudaStream_t>(stream);
    check(cudaLaunchKernelEx(&launch, ema_update_kernel, pairs, chunks, momentum, momentum_at, momentum_is_double, step,
                             step_at),
          "ema_update");
}

}  // namespace sslfast::cuda
