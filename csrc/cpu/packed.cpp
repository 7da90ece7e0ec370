#include "cpu/packed.h"

#include <cstring>

namespace sslfast::cpu {

void Strips::put(int64_t i, const float* from) const {
    for (int64_t k = 0; k < depth; k += kPanel) std::memcpy(at(i, k), from + k, kPanel * sizeof(float));
}

void Strips::get(int64_t i, float* to) const {
    for (int64_t k = 0; k < depth; k += kPanel) std::memcpy(to + k, at(i, k), kPanel * sizeof(float));
}

void Panels::put(int64_t first_row, const float* rows) const {
    float* const to = data + first_row * depth;
    for (int64_t k = 0; k < depth; k += kWidth)
        for (int64_t r = 0; r < kPanel; r += kWidth) {
            Vector square[kWidth];
            for (int64_t i = 0; i < kWidth; ++i) square[i] = load(rows + (r + i) * depth + k);
            transpose(square);
            for (int64_t i = 0; i < kWidth; ++i) store(square[i], to + (k + i) * kPanel + r);
        }
}

}  // namespace sslfast::cpu
