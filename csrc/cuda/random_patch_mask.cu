#include "cuda/random_patch_mask.h"

#include <algorithm>

#include "cuda/check.h"

namespace sslfast::cuda {
namespace {

constexpr int kMaxThreads = 1024;
constexpr size_t kPlainShared = 48 << 10;  // bytes of shared memory that a kernel has unasked
static_assert(kMaxPatches <= 1 << 16, "indices are of 16 bits");

struct Seeded {
    const uint64_t* seed;

    __device__ void fill(uint32_t* keys, int64_t image, int patches) const {
        for (int group = threadIdx.x; 4 * group < patches; group += blockDim.x) {
            const Words words = patch_keys(uint32_t(group), uint32_t(image), *seed);
            *reinterpret_cast<uint4*>(keys + 4 * group) = {words.x[0], words.x[1], words.x[2], words.x[3]};
        }
    }
};

template <typename T>
struct Noise {
    const T* noise;
    int64_t image_stride, patch_stride;

    __device__ void fill(uint32_t* keys, int64_t image, int patches) const {
        for (int patch = threadIdx.x; patch < patches; patch += blockDim.x)
            keys[patch] = patch_key(to_float(noise[image * image_stride + patch * patch_stride]));
    }
};

// Bitonic sort of `size` keys, a power of two from 64, and of their indices, which break ties.
__device__ void sort(uint32_t* keys, uint16_t* indices, int size) {
    for (int run = 2; run <= size; run *= 2) {
        for (int stride = run / 2; stride > 0; stride /= 2) {
            // Pairs up to 32 apart lie in the 64 keys that a warp has to itself, in the step before as well.
            if (stride >= 32 || run == 2)
                __syncthreads();
            else
                __syncwarp();
            for (int pair = threadIdx.x; pair < size / 2; pair += blockDim.x) {
                const int a = 2 * pair - (pair & (stride - 1)), b = a + stride;
                const uint32_t key_a = keys[a], key_b = keys[b];
                const uint16_t index_a = indices[a], index_b = indices[b];
                const bool before = key_a != key_b ? key_a < key_b : index_a < index_b;
                const bool ascending = (a & run) == 0;
                if (before == ascending) continue;
                keys[a] = key_b, keys[b] = key_a;
                indices[a] = index_b, indices[b] = index_a;
            }
        }
    }
    __syncthreads();
}

template <typename Source>
__global__ void __launch_bounds__(kMaxThreads) random_patch_mask_kernel(
    Source source, int patches, int size, int kept, int64_t* __restrict__ keep, int64_t* __restrict__ restore,
    bool* __restrict__ mask) {
    extern __shared__ uint4 memory[];
    uint32_t* keys = reinterpret_cast<uint32_t*>(memory);
    uint16_t* indices = reinterpret_cast<uint16_t*>(keys + size);
    const int64_t image = blockIdx.x;
    source.fill(keys, image, patches);
    for (int i = threadIdx.x; i < size; i += blockDim.x) indices[i] = uint16_t(i);
    __syncthreads();  // the last group of four may reach into the padding
    for (int i = patches + threadIdx.x; i < size; i += blockDim.x) keys[i] = 0xFFFFFFFF;
    sort(keys, indices, size);

    for (int rank = threadIdx.x; rank < patches; rank += blockDim.x) {
        keys[indices[rank]] = rank;
        if (rank < kept) keep[image * kept + rank] = indices[rank];
    }
    __syncthreads();
    for (int patch = threadIdx.x; patch < patches; patch += blockDim.x) {
        restore[image * patches + patch] = keys[patch];
        mask[image * patches + patch] = keys[patch] >= uint32_t(kept);
    }
}

template <typename Source>
void launch(Source source, int64_t batch, int64_t patches, int64_t kept, int64_t* keep, int64_t* restore, bool* mask,
            void* stream) {
    if (batch == 0) return;
    int size = 64;
    while (size < patches) size *= 2;
    const size_t shared = size * (sizeof(uint32_t) + sizeof(uint16_t));
    const auto kernel = random_patch_mask_kernel<Source>;
    if (shared > kPlainShared)
        check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)),
              "random_patch_mask");
    cudaLaunchConfig_t launch = {};
    launch.gridDim = dim3(unsigned(batch));
    launch.blockDim = dim3(unsigned(std::min(size / 2, kMaxThreads)));
    launch.dynamicSmemBytes = shared;
    launch.stream = static_cast<cudaStream_t>(stream);
    check(cudaLaunchKernelEx(&launch, kernel, source, int(patches), size, int(kept), keep, restore, mask),
          "random_patch_mask");
}

}  // namespace

void random_patch_mask_from_seed(const uint64_t* seed, int64_t batch, int64_t patches, int64_t kept, int64_t* keep,
                                 int64_t* restore, bool* mask, void* stream) {
    launch(Seeded{seed}, batch, patches, kept, keep, restore, mask, stream);
}

void random_patch_mask_from_noise(const void* noise, int type, int64_t image_stride, int64_t patch_stride,
                                  int64_t batch, int64_t patches, int64_t kept, int64_t* keep, int64_t* restore,
                                  bool* mask, void* stream) {
    with_type(type, [&](auto zero) {
        using T = decltype(zero);
        launch(Noise<T>{static_cast<const T*>(noise), image_stride, patch_stride}, batch, patches, kept, keep, restore,
               mask, stream);
    });
}

}  // namespace sslfast::cuda
