#include "cpu/random_patch_mask.h"

#include <algorithm>
#include <vector>

#include "common/patch_mask.h"
#include "cpu/rows.h"

namespace sslfast::cpu {
namespace {

// Patches that are sorted within a millisecond or two: a thread that has lost its core may be missed for longer.
constexpr int64_t kSerialPatches = 1 << 15;
constexpr int64_t kSortBytes = 64;  // a patch is sorted in the time in which so many bytes are copied

// fill(image, keys) gives a row of patches their keys, up to three more than there are.
template <typename Fill>
void choose(Fill fill, int64_t batch, int64_t patches, int64_t kept, int64_t* keep, int64_t* restore, uint8_t* mask) {
#pragma omp parallel if (batch * patches > kSerialPatches)
    {
        std::vector<uint32_t> keys(patches + 3);
        std::vector<uint64_t> order(patches);  // (key, index): unique, so any sort is stable
#pragma omp for schedule(dynamic, rows_at_once(patches * kSortBytes))
        for (int64_t image = 0; image < batch; ++image) {
            fill(image, keys.data());
            for (int64_t i = 0; i < patches; ++i) order[i] = uint64_t(keys[i]) << 32 | uint64_t(i);
            std::sort(order.begin(), order.end());
            for (int64_t place = 0; place < patches; ++place) {
                const int64_t patch = int64_t(order[place] & 0xFFFFFFFF);
                if (place < kept) keep[image * kept + place] = patch;
                restore[image * patches + patch] = place;
                mask[image * patches + patch] = place >= kept;
            }
        }
    }
}

}  // namespace

void random_patch_mask_from_seed(uint64_t seed, int64_t batch, int64_t patches, int64_t kept, int64_t* keep,
                                 int64_t* restore, uint8_t* mask) {
    const auto drawn = [=](int64_t image, uint32_t* keys) {
        for (int64_t group = 0; 4 * group < patches; ++group) {
            const Words words = patch_keys(uint32_t(group), uint32_t(image), seed);
            std::copy(words.x, words.x + 4, keys + 4 * group);
        }
    };
    choose(drawn, batch, patches, kept, keep, restore, mask);
}

void random_patch_mask_from_noise(const float* noise, int64_t batch, int64_t patches, int64_t kept, int64_t* keep,
                                  int64_t* restore, uint8_t* mask) {
    const auto given = [=](int64_t image, uint32_t* keys) {
        for (int64_t i = 0; i < patches; ++i) keys[i] = patch_key(noise[image * patches + i]);
    };
    choose(given, batch, patches, kept, keep, restore, mask);
}

}  // namespace sslfast::cpu
