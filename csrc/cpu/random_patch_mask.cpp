#include "cpu/random_patch_mask.h"

#include <algorithm>
#include <cfloat>
#include <numeric>
#include <vector>

#include "common/patch_mask.h"
#include "cpu/rows.h"

namespace sslfast::cpu {
namespace {

// Patches that are sorted within half a millisecond: a thread that has lost its core may be missed for longer.
constexpr int64_t kSerialPatches = 1 << 17;
constexpr int64_t kSortBytes = 32;  // a patch is sorted in the time in which so many bytes are copied

// fill(image, keys, near) gives a row of patches their keys, up to three more than there are, and the places near which they
// will come: some function of the key that never falls, in [0, patches). Where it is spread evenly, sorting takes a time
// that is proportional to the patches; it never takes longer than std::sort.
template <typename Fill>
void choose(Fill fill, int64_t batch, int64_t patches, int64_t kept, int64_t* keep, int64_t* restore, uint8_t* mask) {
#pragma omp parallel if (batch * patches > kSerialPatches)
    {
        std::vector<uint32_t> keys(patches + 3), near(patches), ends(patches + 1);
        std::vector<uint64_t> order(patches);  // (key, index): unique, so any sort is stable
#pragma omp for schedule(dynamic, rows_at_once(patches * kSortBytes))
        for (int64_t image = 0; image < batch; ++image) {
            fill(image, keys.data(), near.data());
            std::fill(ends.begin(), ends.end(), 0);
            for (int64_t i = 0; i < patches; ++i) ++ends[near[i] + 1];
            std::partial_sum(ends.begin(), ends.end(), ends.begin());
            for (int64_t i = 0; i < patches; ++i) order[ends[near[i]]++] = uint64_t(keys[i]) << 32 | uint64_t(i);
            for (int64_t place = 0, begin = 0; place < patches; begin = ends[place++])
                if (ends[place] - begin > 1) std::sort(order.begin() + begin, order.begin() + ends[place]);
            for (int64_t place = 0; place < patches; ++place) {
                const int64_t patch = int64_t(order[place] & 0xFFFFFFFF);
                if (place < kept) keep[image * kept + place] = patch;
                restore[image * patches + patch] = place;
                mask[image * patches + patch] = place >= kept;
            }
        }
    }
}

// As `choose` wants it, of numbers that are best spread evenly over their range.
void places_near(const float* noise, int64_t patches, uint32_t* near) {
    float least = noise[0], most = noise[0], finite = 0;
    for (int64_t i = 0; i < patches; ++i) {
        least = std::min(least, noise[i]), most = std::max(most, noise[i]);
        finite += noise[i] - noise[i];
    }
    const float range = most - least, scale = float(patches - 1) / range;
    if (finite != 0 || !(scale < FLT_MAX) || !(range < FLT_MAX)) {
        std::fill_n(near, patches, 0);
        return;
    }
    for (int64_t i = 0; i < patches; ++i)
        near[i] = std::min(uint32_t((noise[i] - least) * scale), uint32_t(patches - 1));
}

}  // namespace

void random_patch_mask_from_seed(uint64_t seed, int64_t batch, int64_t patches, int64_t kept, int64_t* keep,
                                 int64_t* restore, uint8_t* mask) {
    const auto drawn = [=](int64_t image, uint32_t* keys, uint32_t* near) {
        for (int64_t group = 0; 4 * group < patches; ++group) {
            const Words words = patch_keys(uint32_t(group), uint32_t(image), seed);
            std::copy(words.x, words.x + 4, keys + 4 * group);
        }
        for (int64_t i = 0; i < patches; ++i) near[i] = uint32_t(uint64_t(keys[i]) * uint64_t(patches) >> 32);
    };
    choose(drawn, batch, patches, kept, keep, restore, mask);
}

void random_patch_mask_from_noise(const float* noise, int64_t batch, int64_t patches, int64_t kept, int64_t* keep,
                                  int64_t* restore, uint8_t* mask) {
    const auto given = [=](int64_t image, uint32_t* keys, uint32_t* near) {
        for (int64_t i = 0; i < patches; ++i) keys[i] = patch_key(noise[image * patches + i]);
        places_near(noise + image * patches, patches, near);
    };
    choose(given, batch, patches, kept, keep, restore, mask);
}

}  // namespace sslfast::cpu
