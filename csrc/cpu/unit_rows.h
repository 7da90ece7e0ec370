// Raw rows onto the unit sphere and their gradients back; the loss of a row; views of one image.
#pragma once

#include <cstdint>
#include <functional>

#include "cpu/contrastive.h"
#include "cpu/packed.h"

namespace sslfast::cpu {

inline constexpr double kLongestRaw = 0x1p50;  // of raw rows: of longer ones a product over a temperature may overflow

using ReadRow = std::function<void(int64_t, float*)>;  // row i, filled up with zeros to a multiple of kPanel floats

// Reads the rows of z1, then of z2, at unit length, and keeps them in `unit`, whose type rounds them; `scale` is what they were
// multiplied by: 0 for a zero row, 1e12 for one shorter than 1e-12. Unless `normalized` they stay as they are, or NaN if
// longer than kLongestRaw, and scale is 1.
ReadRow read_normalized(const Rows& z1, int64_t count1, const Rows& z2, const Rows& unit, float* scale,
                        bool normalized = true);
void normalize_rows(const Rows& z1, int64_t count1, const Rows& z2, int64_t count2, const Rows& unit, float* scale);

ReadRow read_rows(const Rows& x);

// Rows first .. first + count, for what reading them leaves behind.
void read_each(const ReadRow& read, int64_t first, int64_t count, int64_t depth);

// Rows first .. first + count, behind the first `at` of packed.
void pack_rows(const ReadRow& read, int64_t first, int64_t count, const Packed& packed, int64_t at = 0);

// What a temperature means to the losses and gradients; one that is not positive gives NaN, never a wrong number.
struct Temperature {
    double inverse;
    bool fixed;  // whether 1 serves as the maximum of every row: exp((cosine - 1)/tau) cannot underflow for all of it

    // Of dot products, unless `normalized`, nothing is known beforehand.
    explicit Temperature(double tau, bool normalized = true);
    // exp((a - b)/tau)
    double exponential(double a, double b) const;
};

// A softmax that was summed in parts: sum of exp((cosine - maximum)/tau).
struct RunningSum {
    float maximum;
    double sum;

    void merge(float part_maximum, double part_sum, const Temperature& tau);
};

// loss = log(1 + sum of the negatives / the positive), exact also where it is tiny. `shift` comes to include the positive,
// and inverse_sum is what turns exp((cosine - shift)/tau) into probabilities P. (A log-sum-exp in fp32 would round P by
// its own magnitude.)
struct RowLoss {
    float loss, shift, inverse_sum;
    RowLoss(const RunningSum& negatives, float positive, const Temperature& tau);
};

// du, to be multiplied, of the negatives to the unit row u, becomes the gradient to the raw row; returns u·du. The
// positive joins here with its weight: by far the largest, and added last it does not coarsen the sum of the others. Rows
// that were not normalised have nothing to project out. `depth` is a multiple of kPanel, as all rows here are padded.
double project_row(float* du, const float* u, const float* positive, float weight, float scale, double multiplier,
                   int64_t depth, bool normalized = true);

double dot(const float* x, const float* y, int64_t depth);

// Rows that are the views of images, view after view: what pulls each view to those 1 to views - 1 places before it.
struct Pulls {
    int64_t views;
    const float* pairs;  // (views - 1, rows), or null for none

    // That between a row and the one of its image so many views before, from both sides.
    float between(int64_t row, int64_t distance, int64_t rows) const;
};

// out = multiplier * the gradients to raw rows from those to unit rows, du less `pulls` times the views pulled to; returns the sum of
// u·(this difference).
double project_rows(const Rows& du, const Rows& unit, const float* scale, int64_t count, double multiplier,
                    const Pulls& pulls, const Rows& out);

// The cosines of every row with those of its image 1 to views - 1 views before, (views - 1, count).
void view_cosines(const Rows& unit, int64_t views, int64_t count, float* cosines);

}  // namespace sslfast::cpu
