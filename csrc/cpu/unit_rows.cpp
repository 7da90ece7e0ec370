#include "cpu/unit_rows.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

#include "common/half.h"
#include "common/simd.h"
#include "cpu/rows.h"
#include "cpu/tasks.h"

namespace sslfast::cpu {
namespace {

constexpr float kEps = 1e-12f;                // of F.normalize
constexpr double kFixedShiftFrom = 0.025;     // the least temperature with exp(-2/tau) well above the least float

double squared_length(const float* row, int64_t depth) {
    double squares = 0;  // of doubles: no square of a float overflows or vanishes
#pragma omp simd reduction(+ : squares)
    for (int64_t k = 0; k < depth; ++k) squares += double(row[k]) * row[k];
    return squares;
}

// In place; returns the factor.
float normalize(float* row, int64_t depth) {
    const double squares = squared_length(row, depth), length = std::sqrt(squares);
    const float shrink = length > FLT_MAX ? 0x1p-64f : 1;  // of a row whose length is no float
    float norm = float(length * shrink);
    norm = norm < kEps ? kEps : norm;
#pragma omp simd
    for (int64_t k = 0; k < depth; ++k) row[k] = row[k] * shrink / norm;
    return squares == 0 ? 0 : shrink / norm;
}

// In place; returns the factor, which is 1.
float leave(float* row, int64_t depth) {
    if (!(squared_length(row, depth) <= kLongestRaw * kLongestRaw)) std::fill_n(row, depth, NAN);
    return 1;
}

}  // namespace

bool Rows::paired() const { return kPairs && type == kBfloat16; }

void Rows::read(int64_t i, float* row) const {
    with_type(type, [&](auto zero) {
        const auto* from = static_cast<const decltype(zero)*>(data) + i * dim;
#pragma omp simd
        for (int64_t k = 0; k < dim; ++k) row[k] = to_float(from[k]);
    });
    std::fill(row + dim, row + Strips::depth_of(dim), 0.0f);
}

void Rows::write(int64_t i, const float* row) const {
    with_type(type, [&](auto zero) {
        auto* to = static_cast<decltype(zero)*>(data) + i * dim;
#pragma omp simd
        for (int64_t k = 0; k < dim; ++k) store(to + k, row[k]);
    });
}

int64_t kept_from(int type) {
    constexpr int64_t words = kWidth == 16 ? 128 : 64;  // measured on Zen 5 with AVX-512, on Zen 3 with AVX2 and without
    return Rows{nullptr, type, 0}.paired() ? 2 * words : words;
}

float* Kept::tile(int64_t index) const { return index < tiles ? cosines + index * kTile * kTile : nullptr; }

ReadRow read_normalized(const Rows& z1, int64_t count1, const Rows& z2, const Rows& unit, float* scale,
                        bool normalized) {
    return [=](int64_t i, float* row) {
        const int64_t depth = Strips::depth_of(unit.dim);
        i < count1 ? z1.read(i, row) : z2.read(i - count1, row);
        scale[i] = normalized ? normalize(row, depth) : leave(row, depth);
        unit.write(i, row);
        if (unit.type != kFloat32) unit.read(i, row);
    };
}

void read_each(const ReadRow& read, int64_t first, int64_t count, int64_t depth) {
    for_each_piece(count, kPanel, count * depth * 8, depth, [&](int64_t begin, int64_t end, float* row) {
        for (int64_t i = begin; i < end; ++i) read(first + i, row);
    });
}

void normalize_rows(const Rows& z1, int64_t count1, const Rows& z2, int64_t count2, const Rows& unit, float* scale) {
    read_each(read_normalized(z1, count1, z2, unit, scale), 0, count1 + count2, Strips::depth_of(unit.dim));
}

ReadRow read_rows(const Rows& x) {
    return [=](int64_t i, float* row) { x.read(i, row); };
}

void pack_rows(const ReadRow& read, int64_t first, int64_t count, const Packed& packed, int64_t at) {
    const int64_t depth = packed.depth(), whole = padded(count, kTile);
    for_each_piece(whole, kPanel, whole * depth * 8, kPanel * depth, [&](int64_t begin, int64_t end, float* rows) {
        for (int64_t i = begin; i < end; ++i) {
            float* const row = rows + (i - begin) * depth;
            if (i < count)
                read(first + i, row);
            else
                std::fill_n(row, depth, 0.0f);
        }
        packed.put(at + begin, rows);
    });
}

Temperature::Temperature(double tau, bool normalized)
    : inverse(tau > 0 ? 1 / tau : NAN), fixed(normalized && tau >= kFixedShiftFrom) {}

double Temperature::exponential(double a, double b) const { return std::exp((a - b) * inverse); }

void RunningSum::merge(float part_maximum, double part_sum, const Temperature& tau) {
    if (maximum == part_maximum) {
        sum += part_sum;  // as with every fixed shift
        return;
    }
    const float top = std::max(maximum, part_maximum);
    sum = sum * tau.exponential(maximum, top) + part_sum * tau.exponential(part_maximum, top);
    maximum = top;
}

RowLoss::RowLoss(const RunningSum& negatives, float positive, const Temperature& tau) {
    const double above = (double(negatives.maximum) - positive) * tau.inverse;
    // Beyond the range of exp the 1 is lost anyway.
    loss = float(above > 700 ? above + std::log(negatives.sum) : std::log1p(negatives.sum * std::exp(above)));
    shift = above < 0 ? positive : negatives.maximum;
    inverse_sum = float(1 / (negatives.sum * std::exp(std::min(above, 0.0)) + std::exp(-std::max(above, 0.0))));
}

double dot(const float* x, const float* y, int64_t depth) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < depth; ++k) sum += double(x[k]) * y[k];
    return sum;
}

double project_row(float* du, const float* u, const float* positive, float weight, float scale, double multiplier,
                   int64_t depth, bool normalized) {
    Vector sums{};  // a sum of its own a lane, whatever the compiler would make of the loop: it rounds less than one of all
    for (int64_t k = 0; k < depth; k += kWidth) {
        const Vector x = load(du + k) + weight * load(positive + k);
        store(x, du + k);
        sums += x * load(u + k);
    }
    const float along = sum(sums);
    // The factor of a row shorter than kEps is constant: nothing to project out.
    const float radial = normalized && scale < 1 / kEps ? along : 0;
    // Finite, so that zero stays zero.
    const float factor = float(std::clamp(scale * multiplier, -double(FLT_MAX), double(FLT_MAX)));
#pragma omp simd
    for (int64_t k = 0; k < depth; ++k) du[k] = (du[k] - radial * u[k]) * factor;
    return along;
}

namespace {

// The row of the same image so many views before.
int64_t view_before(int64_t row, int64_t distance, int64_t views, int64_t rows) {
    const int64_t at = row - distance * (rows / views);
    return at < 0 ? at + rows : at;
}

}  // namespace

float Pulls::between(int64_t row, int64_t distance, int64_t rows) const {
    const int64_t other = view_before(row, distance, views, rows);
    return pairs[(distance - 1) * rows + row] + pairs[(views - distance - 1) * rows + other];
}

double project_rows(const Rows& du, const Rows& unit, const float* scale, int64_t count, double multiplier,
                    const Pulls& pulls, const Rows& out) {
    const int64_t depth = Strips::depth_of(unit.dim);
    std::vector<double> along(count);
    for_each_piece(count, kPanel, 8 * count * depth, 2 * depth, [&](int64_t begin, int64_t end, float* row) {
        float* const u = row + depth;
        for (int64_t i = begin; i < end; ++i) {
            du.read(i, row);
            for (int64_t distance = 1; pulls.pairs && distance < pulls.views; ++distance) {
                unit.read(view_before(i, distance, pulls.views, count), u);
                const float pull = pulls.between(i, distance, count);
                for (int64_t k = 0; k < depth; ++k) row[k] -= pull * u[k];
            }
            unit.read(i, u);
            along[i] = dot(u, row, depth);
            project_row(row, u, u, 0, scale[i], multiplier, depth);
            out.write(i, row);
        }
    });
    double total = 0;
    for (const double a : along) total += a;
    return total;
}

void view_cosines(const Rows& unit, int64_t views, int64_t count, float* cosines) {
    const int64_t depth = Strips::depth_of(unit.dim), images = count / views;
    for_each_piece(images, kPanel, views * count * depth, views * depth, [&](int64_t begin, int64_t end, float* rows) {
        for (int64_t i = begin; i < end; ++i) {
            for (int64_t v = 0; v < views; ++v) unit.read(v * images + i, rows + v * depth);
            for (int64_t v = 0; v < views; ++v)
                for (int64_t w = 0; w < v; ++w) {
                    const float cosine = float(dot(rows + v * depth, rows + w * depth, depth));
                    cosines[(v - w - 1) * count + v * images + i] = cosine;
                    cosines[(views + w - v - 1) * count + w * images + i] = cosine;
                }
        }
    });
}

}  // namespace sslfast::cpu
