#include "cpu/packed.h"

#include <cstring>

#include "common/half.h"

namespace sslfast::cpu {

void Strips::put(int64_t i, const float* from) const {
    for (int64_t k = 0; k < depth; k += kPanel) std::memcpy(at(i, k), from + k, kPanel * sizeof(float));
}

void Strips::put_pairs(int64_t i, const float* from, int64_t count) const {
    for (int64_t k = 0; k < depth; k += kWidth) {
        Pairs pairs = {};
        if (2 * k < count) pairs = rounded(load(from + 2 * k), load(from + 2 * k + kWidth));
        std::memcpy(at(i, k / kPanel * kPanel) + k % kPanel, &pairs, sizeof pairs);
    }
}

void Strips::get(int64_t i, float* to) const {
    for (int64_t k = 0; k < depth; k += kPanel) std::memcpy(to + k, at(i, k), kPanel * sizeof(float));
}

Operand::Operand(int64_t rows, int64_t depth, bool paired, float* data)
    : paired(paired), cosines{words(depth, paired), data}, sums{depth, paired ? data + rows * cosines.depth : data} {}

int64_t Operand::floats(int64_t rows, int64_t depth, bool paired) {
    return rows * words(depth, paired) + (paired ? padded(rows / 2, kTile) * depth : 0);
}

void Operand::put(int64_t i, const float* rows, bool for_cosines) const {
    const float *const row = rows, *const next = rows + sums.depth;
    if (!paired) {
        sums.put(i, row), sums.put(i + 1, next);
        return;
    }
    if (for_cosines) cosines.put_pairs(i, row, sums.depth), cosines.put_pairs(i + 1, next, sums.depth);
    for (int64_t k = 0; k < sums.depth; k += kPanel) {
        const Pairs own = rounded(load(row + k), load(row + k + kWidth));
        const Pairs other = rounded(load(next + k), load(next + k + kWidth));
        for (int64_t half : {0, 1}) {
            const Pairs both = zipped(own, other, half);
            std::memcpy(sums.at(i / 2, k) + half * kWidth, &both, sizeof both);
        }
    }
}

void Operand::get(int64_t i, float* row) const {
    if (!paired) {
        sums.get(i, row);
        return;
    }
    for (int64_t k = 0; k < sums.depth; k += kPanel) {
        const float* const pairs = sums.at(i / 2, k);
#pragma omp simd
        for (int64_t j = 0; j < kPanel; ++j) {
            const uint32_t bits = bits_of(pairs[j]);
            row[k + j] = float_of(i % 2 ? bits & 0xFFFF0000 : bits << 16);
        }
    }
}

void Panels::put(int64_t first_row, const Strips& rows, int64_t from) const {
    float* const to = data + first_row * depth;
    for (int64_t k = 0; k < depth; k += kWidth)
        for (int64_t r = 0; r < kPanel; r += kWidth) {
            Vector square[kWidth];
            for (int64_t i = 0; i < kWidth; ++i)
                square[i] = load(rows.at(from + r + i, k / kPanel * kPanel) + k % kPanel);
            transpose(square);
            for (int64_t i = 0; i < kWidth; ++i) store(square[i], to + (k + i) * kPanel + r);
        }
}

}  // namespace sslfast::cpu
