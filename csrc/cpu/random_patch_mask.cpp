#include "cpu/random_patch_mask.h"

#include <algorithm>
#include <vector>

#include "common/half.h"
#include "common/philox.h"
#include "cpu/rows.h"

namespace sslfast::cpu {
namespace {

// An unsigned number in the order of the floats: the sign is flipped, and of negative numbers all bits.
uint32_t ordered(float x) {
    if (x != x) return 0xFFFFFFFF;
    const uint32_t bits = bits_of(x + 0.0f);  // -0 becomes 0
    return bits >> 31 ? ~bits : bits | 0x80000000;
}

// Patches that are sorted within a millisecond or two: a thread that has lost its core may be missed for longer.
constexpr int64_t kSerialPatches = 1 << 15;

// noise(image, words) fills a row with one word a patch.
template <typename Noise>
void choose(Noise noise, int64_t batch, int64_t patches, int64_t kept, int64_t* keep, int64_t* restore, uint8_t* mask) {
#pragma omp parallel if (batch * patches > kSerialPatches)
    {
        std::vector<uint32_t> words(patches + 3);
        std::vector<uint64_t> keys(patches);  // (noise, index): unique, so any sort is stable
#pragma omp for schedule(dynamic, rows_at_once(patches * 64))  // as slow as copying so many bytes
        for (int64_t image = 0; image < batch; ++image) {
            noise(image, words.data());
            for (int64_t i = 0; i < patches; ++i) keys[i] = uint64_t(words[i]) << 32 | uint64_t(i);
            std::sort(keys.begin(), keys.end());
            for (int64_t place = 0; place < patches; ++place) {
                const int64_t patch = int64_t(keys[place] & 0xFFFFFFFF);
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
    const auto drawn = [=](int64_t image, uint32_t* words) {
        for (int64_t group = 0; group < (patches + 3) / 4; ++group) {
            const Words four = philox({{uint32_t(group), uint32_t(image), 0, 0}}, seed);
            std::copy(four.x, four.x + 4, words + 4 * group);
        }
    };
    choose(drawn, batch, patches, kept, keep, restore, mask);
}

void random_patch_mask_from_noise(const float* noise, int64_t batch, int64_t patches, int64_t kept, int64_t* keep,
                                  int64_t* restore, uint8_t* mask) {
    const auto given = [=](int64_t image, uint32_t* words) {
        for (int64_t i = 0; i < patches; ++i) words[i] = ordered(noise[image * patches + i]);
    };
    choose(given, batch, patches, kept, keep, restore, mask);
}

}  // namespace sslfast::cpu
