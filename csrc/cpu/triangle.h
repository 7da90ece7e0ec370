// Unit rows against each other: the upper triangle of their cosines, or its part across two halves, tile by tile, never held.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/packed.h"
#include "cpu/softmax_tile.h"
#include "cpu/tile.h"

namespace sslfast::cpu {

// The rows in blocks of kTile, in one part, or where only pairs across count in two that begin a block each.
class Triangle {
public:
    // With `partners` the pairs that are half of all rows apart do not count. Nor do those of one id, if there are ids;
    // those of one label, if there are labels, are positives, whether they count or not. The cosines of `known` are not
    // computed again.
    Triangle(const Rows& unit, int64_t total, bool across, bool partners, const ReadRow& read, const Kept& known,
             const int32_t* ids = nullptr, const int32_t* labels = nullptr);

    bool across() const { return parts_ == 2; }
    int64_t parts() const { return parts_; }
    int64_t count() const { return count_; }    // rows of a part
    int64_t blocks() const { return blocks_; }  // of a part
    int64_t tiles() const { return across() ? blocks_ * blocks_ : blocks_ * (blocks_ + 1) / 2; }
    int64_t rows() const { return packed_.rows(); }
    int64_t depth() const { return packed_.depth(); }
    const Operand& operand() const { return packed_.operand(); }
    int64_t place(int64_t row) const { return row / count_ * blocks_ * kTile + row % count_; }
    const Packed& packed() const { return packed_; }
    // The place of the row that is half of all rows apart, for a place that has a row.
    int64_t partner(int64_t place) const {
        const int64_t all = across() ? rows() : count_;
        return (place + all / 2) % all;
    }
    int64_t size(int64_t block) const { return std::min(kTile, count_ - block % blocks_ * kTile); }
    int64_t work(int64_t products) const { return parts_ * count_ * count_ / 2 * depth() * products; }

    // Of a tile among those of the triangle or the square.
    int64_t index(int64_t first, int64_t second) const {
        return across() ? (first - 1) * blocks_ + second : first * blocks_ - first * (first - 1) / 2 + second - first;
    }
    Cosines tile(int64_t first, int64_t second, const float* known) const;
    // Every pair from one side, but for a row with itself and with its partner.
    Counted negatives(int64_t first, int64_t second) const;

    bool has_labels() const { return labels_.at(0); }
    const int32_t* labels(int64_t block) const { return labels_.at(block * kTile); }
    bool has_positives(int64_t first, int64_t second) const {
        return labels_.from(first * kTile, size(first), labels_, second * kTile, size(second));
    }

private:
    int64_t parts_, count_, blocks_, apart_;
    Packed packed_;
    Ids ids_, labels_;
};

// Of every row the sum of the exponentials of the pairs that count, and of the cosines of its positives; with_closer, how
// many of these pairs are closer than the row's partner, half of all rows apart.
class TriangleSums {
public:
    TriangleSums(const Triangle& triangle, const Temperature& tau, bool with_closer, const Kept& kept);

    RunningSum total(int64_t row) const;
    float positive(int64_t row) const;
    int64_t closer(int64_t row) const;

private:
    const Triangle& triangle_;
    Temperature tau_;
    int64_t rows_, wide_, groups_;  // groups of rows, each of which leaves sums of its own in every row
    Buffer sum_, maximum_, positive_;
    std::vector<int32_t> closer_;
};

// Of every row: its factor is factor * factor2, which may be null.
struct TriangleFactors {
    const float *factor, *factor2, *shift, *pull;
};

// du (rows, depth) = sum over the pairs that count of (factor_i exp((c_ij - shift_i)/tau) + the same of j) u_j, less the sum
// over the positives of (pull_i + pull_j) u_j.
void weighted_triangle(const Triangle& triangle, const TriangleFactors& of_rows, const Temperature& tau, const Kept& kept,
                       const Strips& du);

}  // namespace sslfast::cpu
