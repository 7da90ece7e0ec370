// As much of CUDA's runtime as csrc/cuda uses, on the host: a block is a set of threads that meet at barriers. Compiled
// with ThreadSanitizer, which then sees every pair of accesses that no barrier parts.
//
// Blocks follow one another. Without shared memory nothing parts two of them, and their threads are dealt out anew, so
// that blocks that touch the same memory are seen too. Shared memory is the program's own to define, once for all blocks.
#pragma once

#include <barrier>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __builtin_assume(x)

struct uint4 {
    uint32_t x, y, z, w;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3(unsigned x = 1) : x(x) {}
};
inline thread_local dim3 threadIdx{0}, blockIdx{0};
inline dim3 blockDim, gridDim;

namespace on_host {

constexpr int kWarp = 32;

inline std::deque<std::barrier<>> barriers;  // of the block, then of its warps
inline thread_local int warp;
inline int left_out = 0;  // the line whose barrier does nothing

inline void meet(int barrier, int line) {
    if (line != left_out) barriers[barrier].arrive_and_wait();
}

}  // namespace on_host

#define __syncthreads() on_host::meet(0, __LINE__)
#define __syncwarp() on_host::meet(1 + on_host::warp, __LINE__)
inline bool __isGlobal(const void*) { return true; }

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidConfiguration = 9;
constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 8;
inline const char* cudaGetErrorString(cudaError_t) { return "not a configuration that the host can run"; }
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, int, int) {
    return cudaSuccess;
}

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
};

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* launch, void (*kernel)(Parameters...), Arguments... arguments) {
    using namespace on_host;
    blockDim = launch->blockDim, gridDim = launch->gridDim;
    const int count = int(blockDim.x);
    if (count % kWarp || count > 1024 || gridDim.y * gridDim.z * blockDim.y * blockDim.z != 1)
        return cudaErrorInvalidConfiguration;
    barriers.clear();
    barriers.emplace_back(count);
    for (int w = 0; w < count / kWarp; ++w) barriers.emplace_back(kWarp);
    std::vector<std::thread> threads;
    for (int t = 0; t < count; ++t)
        threads.emplace_back([=] {
            warp = t / kWarp;
            for (unsigned block = 0; block < gridDim.x; ++block) {
                blockIdx.x = block, threadIdx.x = (t + block * kWarp) % count;
                kernel(arguments...);
                if (launch->dynamicSmemBytes) barriers[0].arrive_and_wait();
            }
        });
    for (std::thread& thread : threads) thread.join();
    return cudaSuccess;
}
