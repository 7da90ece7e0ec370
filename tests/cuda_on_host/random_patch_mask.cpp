// random_patch_mask LEFT_OUT TYPE IMAGE_STRIDE PATCH_STRIDE BATCH PATCHES KEPT: noise of TYPE, or -1 and the seed, from
// standard input; keep, restore and mask to standard output. LEFT_OUT is the line of a barrier that does nothing, or 0.
#include "cuda/random_patch_mask.cu"

#include <cstdlib>
#include <iostream>
#include <iterator>
#include <string>

namespace sslfast::cuda {
namespace {
uint4 memory[6 * kMaxPatches / sizeof(uint4)];  // shared by a block
}
}  // namespace sslfast::cuda

int main(int, char** argument) {
    on_host::left_out = std::atoi(argument[1]);
    const int type = std::atoi(argument[2]);
    int64_t number[5];
    for (int i = 0; i < 5; ++i) number[i] = std::atoll(argument[3 + i]);
    const auto [image_stride, patch_stride, batch, patches, kept] = number;
    const std::string input(std::istreambuf_iterator<char>(std::cin), {});
    std::vector<int64_t> keep(batch * kept, -1), restore(batch * patches, -1);
    std::vector<char> mask(batch * patches, 2);
    bool* flags = reinterpret_cast<bool*>(mask.data());
    if (type < 0)
        sslfast::cuda::random_patch_mask_from_seed(reinterpret_cast<const uint64_t*>(input.data()), batch, patches,
                                                   kept, keep.data(), restore.data(), flags, nullptr);
    else
        sslfast::cuda::random_patch_mask_from_noise(input.data(), type, image_stride, patch_stride, batch, patches,
                                                    kept, keep.data(), restore.data(), flags, nullptr);
    const auto write = [](const auto& array) {
        std::cout.write(reinterpret_cast<const char*>(array.data()), array.size() * sizeof(array[0]));
    };
    write(keep), write(restore), write(mask);
}
