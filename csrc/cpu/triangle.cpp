#include "cpu/triangle.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "cpu/tasks.h"
#include "cpu/tournament.h"
#include "cpu/weighted_sums.h"

namespace sslfast::cpu {
namespace {

constexpr int64_t kGroups = 64;  // at most

// The cosines of the positives of a tile, added to the sums of their rows and of their columns.
void add_positives(const Triangle& triangle, int64_t first, int64_t second, const float* cosines, float* rows,
                   float* columns) {
    const int32_t *const own = triangle.labels(first), *const other = triangle.labels(second);
    for (int64_t i = 0; i < triangle.size(first); ++i) {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = first == second ? i + 1 : 0; j < triangle.size(second); ++j) {
            const float cosine = own[i] == other[j] ? cosines[i * kTile + j] : 0;
            sum += cosine;
            columns[j] += cosine;
        }
        rows[i] += sum;
    }
}

// Takes the pulls of the positives of a tile off their weights.
void pull_positives(const Triangle& triangle, int64_t first, int64_t second, const float* pull, float* weights) {
    const int32_t *const own = triangle.labels(first), *const other = triangle.labels(second);
    const float *const rows = pull + first * kTile, *const columns = pull + second * kTile;
    for (int64_t i = 0; i < triangle.size(first); ++i)
#pragma omp simd
        for (int64_t j = first == second ? i + 1 : 0; j < triangle.size(second); ++j)
            weights[i * kTile + j] -= own[i] == other[j] ? rows[i] + columns[j] : 0;
}

}  // namespace

Triangle::Triangle(const Rows& unit, int64_t total, bool across, bool partners, const ReadRow& read,
                   const Kept& known, const int32_t* ids, const int32_t* labels)
    : parts_(across ? 2 : 1),
      count_(total / parts_),
      blocks_(count_of(count_, kTile)),
      apart_(!partners ? Counted::kNone : across ? blocks_ * kTile : total / 2),
      packed_(parts_ * blocks_ * kTile, unit.dim, unit.paired(), known.tiles < tiles()),
      ids_(ids, total),
      labels_(labels, total) {
    for (int64_t part = 0; part < parts_; ++part)
        pack_rows(read, part * count_, count_, packed_, part * blocks_ * kTile);
}

Cosines Triangle::tile(int64_t first, int64_t second, const float* known) const {
    return {operand(), first * kTile, size(first), packed_.panels(), second * kTile, size(second), known};
}

Counted Triangle::negatives(int64_t first, int64_t second) const {
    const int64_t skip = apart_ == Counted::kNone ? apart_ : apart_ - (second - first) * kTile;
    return {size(first), size(second), first == second ? 0 : -Counted::kNone, skip,
            ids_.from(first * kTile, size(first), ids_, second * kTile, size(second)), ids_.at(second * kTile)};
}

TriangleSums::TriangleSums(const Triangle& triangle, const Temperature& tau, bool with_closer, const Kept& kept)
    : triangle_(triangle),
      tau_(tau),
      rows_(triangle.rows()),
      wide_(count_of(triangle.blocks(), kGroups)),
      groups_(count_of(triangle.blocks(), wide_)),
      sum_(groups_ * rows_),
      maximum_(tau.fixed ? 0 : groups_ * rows_),
      positive_(triangle.has_labels() ? groups_ * rows_ : 0),
      closer_(with_closer ? groups_ * rows_ : 0) {
    const bool across = triangle.across();
    std::optional<Positives> positives;
    if (with_closer)
        positives.emplace(triangle.packed(), rows_, [&](int64_t at, float* row) {
            triangle.operand().get(triangle.partner(at), row);
        });
    std::vector<std::pair<int64_t, int64_t>> pairs;
    for (int64_t second = across ? groups_ : 0; second < triangle.parts() * groups_; ++second)
        for (int64_t first = 0; first <= (across ? groups_ - 1 : second); ++first) pairs.emplace_back(first, second);
    const int64_t blocks = triangle.blocks(), floats = SoftmaxTile::kFloats + kTile * kTile;

    for_each_task(int64_t(pairs.size()), triangle.work(1), floats, [&](int64_t task, float* scratch) {
        const auto [first, second] = pairs[task];
        // The sums of the rows of one group over the columns of the other, and of its columns over the rows.
        SoftmaxTile tile(tau, scratch);
        const auto place = [&](int64_t group, int64_t block) { return group % groups_ * rows_ + block * kTile; };
        const auto slot = [&](int64_t group, int64_t block) {
            const int64_t at = place(group, block);
            return Sums{sum_.get() + at, tau.fixed ? nullptr : maximum_.get() + at,
                        positives ? positives->from(block * kTile, closer_.data() + at) : Closer{}};
        };
        const auto begin = [&](int64_t group) { return group / groups_ * blocks + group % groups_ * wide_; };
        const auto end = [&](int64_t group) { return std::min(begin(group) + wide_, (group / groups_ + 1) * blocks); };
        const auto clear = [&](int64_t of, int64_t group) {
            for (int64_t block = begin(group); block < end(group); ++block) {
                slot(of, block).clear();
                if (triangle.has_labels()) std::fill_n(positive_.get() + place(of, block), kTile, 0.0f);
            }
        };
        clear(second, first);
        if (first != second) clear(first, second);
        for (int64_t i = begin(first); i < end(first); ++i)
            for (int64_t j = std::max(i, begin(second)); j < end(second); ++j) {
                const bool has_positives = triangle.has_positives(i, j);
                float* cosines = kept.tile(triangle.index(i, j));
                if (has_positives && !cosines) cosines = scratch + SoftmaxTile::kFloats;
                tile.add(triangle.tile(i, j, nullptr), triangle.negatives(i, j), cosines, slot(second, i), slot(first, j));
                if (has_positives)
                    add_positives(triangle, i, j, cosines, positive_.get() + place(second, i),
                                  positive_.get() + place(first, j));
            }
    });
}

RunningSum TriangleSums::total(int64_t row) const {
    RunningSum total{tau_.fixed ? 1.0f : kLeast, 0};
    for (int64_t group = 0; group < groups_; ++group) {
        const int64_t at = group * rows_ + triangle_.place(row);
        total.merge(tau_.fixed ? 1 : maximum_.get()[at], sum_.get()[at], tau_);
    }
    return total;
}

float TriangleSums::positive(int64_t row) const {
    double total = 0;
    for (int64_t group = 0; group < groups_; ++group) total += positive_.get()[group * rows_ + triangle_.place(row)];
    return float(total);
}

int64_t TriangleSums::closer(int64_t row) const {
    int64_t count = 0;
    for (int64_t group = 0; group < groups_; ++group) count += closer_[group * rows_ + triangle_.place(row)];
    return count;
}

void weighted_triangle(const Triangle& triangle, const TriangleFactors& of_rows, const Temperature& tau, const Kept& kept,
                       const Strips& du) {
    const Operand& u = triangle.operand();
    const int64_t blocks = triangle.blocks();
    std::vector<Factors> factors;
    for (int64_t part = 0; part < triangle.parts(); ++part) {
        const int64_t first = part * triangle.count();
        factors.emplace_back(of_rows.factor + first, of_rows.factor2 ? of_rows.factor2 + first : nullptr,
                             of_rows.shift + first, triangle.count(), blocks * kTile, tau);
    }
    const auto factors_of = [&](int64_t block) { return factors[block / blocks].from(block % blocks * kTile); };
    const Tournament tournament(triangle.parts() * blocks, triangle.across());
    tournament.run(
        triangle.work(3), kWeightFloats,
        [&](const Tournament::Pair& pair, float* weights) {
            const float* const known = kept.tile(triangle.index(pair.first, pair.second));
            weights_tile(triangle.tile(pair.first, pair.second, known), triangle.negatives(pair.first, pair.second), tau,
                         tau.fixed, factors_of(pair.first), factors_of(pair.second), weights);
            if (triangle.has_positives(pair.first, pair.second))
                pull_positives(triangle, pair.first, pair.second, of_rows.pull, weights);
            if (u.paired) pair_weights(weights, triangle.size(pair.first), triangle.size(pair.second));
        },
        [&](const Tournament::Pair& pair, const float* weights) {
            const bool diagonal = pair.first == pair.second;
            const int64_t height = triangle.size(pair.first), width = triangle.size(pair.second);
            const int64_t i = pair.first * kTile, j = pair.second * kTile;
            sum_columns(weights, height, width, diagonal, u, j, du, i, pair.begins_first);
            sum_rows(weights, height, width, diagonal, u, i, du, j, pair.begins_second);
        });
}

}  // namespace sslfast::cpu
