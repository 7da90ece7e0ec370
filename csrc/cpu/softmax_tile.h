// What the softmax losses do with a tile of cosines: forward the sums of its exponentials, backward their weights.
#pragma once

#include <cstdint>

#include "cpu/ranks.h"
#include "cpu/tile.h"

namespace sslfast::cpu {

inline constexpr float kLeast = -2;         // below every cosine
inline constexpr float kNothing = -3e38f;   // the maximum of nothing

// Sums of exp((cosine - maximum)/tau) of kTile rows or columns; without maxima, these are 1. Of both sides of a tile those
// that are closer than the positives are counted, or of neither.
struct Sums {
    float *sum, *maximum;
    Closer closer;

    void clear() const;
};

// Adds the exponentials of the pairs of a tile that count to the sums of its rows and of its columns.
class SoftmaxTile {
public:
    static constexpr int64_t kFloats = kTile * (kTile + kWidth + 4);  // of scratch

    SoftmaxTile(const Temperature& tau, float* scratch);

    // `kept`, unless null, gets the cosines.
    void add(const Cosines& cosines, const Counted& counted, float* kept, const Sums& rows, const Sums& columns) const;

private:
    void add_fixed(const Cosines&, const Counted&, float* kept, const Sums& rows, const Sums& columns) const;
    void add_running(const Cosines&, const Counted&, float* kept, const Sums& rows, const Sums& columns) const;

    Temperature tau_;
    float *tile_, *lanes_, *column_sums_, *column_maxima_, *row_sums_, *row_maxima_;
};

// Replaces a tile of cosines by the exponentials of the pairs that count, relative to the maxima of `totals`, of its columns,
// and adds them to these. With `fixed` the maxima stay; else they rise, `rescale` gets what turns sums relative to the old
// ones into such, and the result tells whether any did. `kept`, unless null, gets the cosines.
bool exponentials_tile(const Cosines& cosines, const Counted& counted, const Temperature& tau, bool fixed, float* kept,
                       const Closer& closer, float* tile, RunningSum* totals, float* rescale);

// Of every row, what its exponentials are multiplied by and what they are relative to. With a fixed shift that is 1.
class Factors {
public:
    struct Part {
        const float *factor, *shift;
    };

    // Of `count` rows, zero up to `padded_count`; factor may be null: all zero, and so is every exponential.
    Factors(const float* factor, const float* factor2, const float* shift, int64_t count, int64_t padded_count,
            const Temperature& tau);

    Part from(int64_t row) const { return {factor_.get() + row, shift_.get() + row}; }

private:
    Buffer factor_, shift_;
};

// weights (stride kTile) = row factor * exp((cosine - row shift)/tau) + the same of the column; zero where a pair does not
// count. With `fixed` all shifts are 1.
void weights_tile(const Cosines& cosines, const Counted& counted, const Temperature& tau, bool fixed,
                  const Factors::Part& row, const Factors::Part& column, float* weights);

}  // namespace sslfast::cpu
