#include "cpu/softmax_tile.h"

#include <algorithm>
#include <cmath>

namespace sslfast::cpu {
namespace {
// Not all blocks of a tile are computed; what is kept of the others must be the same from run to run.
void begin(float* kept, const Counted& counted) {
    if (kept && (counted.rows < kTile || counted.columns < kTile || counted.low > -Counted::kNone))
        std::fill_n(kept, kTile * kTile, 0.0f);
}

SSLFAST_INLINE void count_closer(const Block& block, const Counted& counted, int64_t i, int64_t j, const Sums& rows,
                                 const Sums& columns) {
    const Block seen = counted.only(i, j, block, -INFINITY);
    rows.closer.add_to_rows(seen, i);
    columns.closer.add_to_columns(seen, j);
}

}  // namespace

void Sums::clear() const {
    std::fill_n(sum, kTile, 0.0f);
    if (maximum) std::fill_n(maximum, kTile, kLeast);
}

SoftmaxTile::SoftmaxTile(const Temperature& tau, float* scratch)
    : tau_(tau),
      tile_(scratch),
      lanes_(tile_ + kTile * kTile),
      column_sums_(lanes_ + kTile * kWidth),
      column_maxima_(column_sums_ + kTile),
      row_sums_(column_maxima_ + kTile),
      row_maxima_(row_sums_ + kTile) {}

void SoftmaxTile::add(const Cosines& cosines, const Counted& counted, float* kept, const Sums& rows,
                      const Sums& columns) const {
    begin(kept, counted);
    tau_.fixed ? add_fixed(cosines, counted, kept, rows, columns) : add_running(cosines, counted, kept, rows, columns);
}

void SoftmaxTile::add_fixed(const Cosines& cosines, const Counted& counted, float* kept, const Sums& rows,
                            const Sums& columns) const {
    const Exponential exponential(tau_);
    std::fill_n(lanes_, kTile * kWidth, 0.0f);  // of every row, kWidth parts of its sum
    std::fill_n(column_sums_, kTile, 0.0f);
    for_each_block(cosines, counted, tile_, [&](int64_t i, int64_t j, const Block& block) {
        if (kept) block.store(kept + i * kTile + j, kTile);
        if (rows.closer.count) count_closer(block, counted, i, j, rows, columns);
        const auto add = [&](const auto& only) {
            Vector down[kVectors] = {};
            SSLFAST_UNROLL
            for (int64_t r = 0; r < kRows; ++r) {
                Vector across = {};
                for (int64_t v = 0; v < kVectors; ++v) {
                    const Vector e = only(r, v, exponential(block.at[r][v], all(1)));
                    across += e;
                    down[v] += e;
                }
                float* const lanes = lanes_ + (i + r) * kWidth;
                store(load(lanes) + across, lanes);
            }
            for (int64_t v = 0; v < kVectors; ++v) {
                float* const column = column_sums_ + j + v * kWidth;
                store(load(column) + down[v], column);
            }
        };
        if (counted.all(i, j))
            add([](int64_t, int64_t, const Vector& e) { return e; });
        else
            add([&](int64_t r, int64_t v, const Vector& e) {
                return counted.only(i + r, j + v * kWidth, e);
            });
    });
    for (int64_t i = 0; i < cosines.rows; ++i) rows.sum[i] += sum(load(lanes_ + i * kWidth));
    for (int64_t j = 0; j < cosines.columns; ++j) columns.sum[j] += column_sums_[j];
}

void SoftmaxTile::add_running(const Cosines& cosines, const Counted& counted, float* kept, const Sums& rows,
                              const Sums& columns) const {
    std::fill_n(tile_, kTile * kTile, kNothing);
    std::fill_n(column_maxima_, kTile, kLeast);
    std::fill_n(column_sums_, kTile, 0.0f);
    const int64_t width = padded(cosines.columns, kWidth);
    for_each_block(cosines, counted, tile_, [&](int64_t i, int64_t j, Block& block) {
        if (kept) block.store(kept + i * kTile + j, kTile);
        if (rows.closer.count) count_closer(block, counted, i, j, rows, columns);
        if (!counted.all(i, j))
            for (int64_t r = 0; r < kRows; ++r)
                for (int64_t v = 0; v < kVectors; ++v)
                    block.at[r][v] = counted.only(i + r, j + v * kWidth, block.at[r][v], kNothing);
        block.store(tile_ + i * kTile + j, kTile);
    });
    for (int64_t i = 0; i < cosines.rows; ++i) {
        Vector most = all(kLeast);
        for (int64_t j = 0; j < width; j += kWidth) {
            const Vector c = load(tile_ + i * kTile + j);
            most = maximum(c, most);
            store(maximum(c, load(column_maxima_ + j)), column_maxima_ + j);
        }
        row_maxima_[i] = largest(most);
    }
    const Exponential exponential(tau_);
    for (int64_t i = 0; i < cosines.rows; ++i) {
        Vector across = {};
        for (int64_t j = 0; j < width; j += kWidth) {
            const Vector c = load(tile_ + i * kTile + j);
            across += exponential(c, all(row_maxima_[i]));
            store(load(column_sums_ + j) + exponential(c, load(column_maxima_ + j)), column_sums_ + j);
        }
        row_sums_[i] = sum(across);
    }
    const auto merge = [&](const Sums& into, const float* sums, const float* maxima, int64_t count) {
        for (int64_t i = 0; i < count; ++i) {
            RunningSum total{into.maximum[i], into.sum[i]};
            total.merge(maxima[i], sums[i], tau_);
            into.maximum[i] = total.maximum, into.sum[i] = float(total.sum);
        }
    };
    merge(rows, row_sums_, row_maxima_, cosines.rows);
    merge(columns, column_sums_, column_maxima_, cosines.columns);
}

bool exponentials_tile(const Cosines& cosines, const Counted& counted, const Temperature& tau, bool fixed, float* kept,
                       const Closer& closer, float* tile, RunningSum* totals, float* rescale) {
    const Exponential exponential(tau);
    const int64_t width = padded(cosines.columns, kWidth);
    alignas(64) float maxima[kTile], sums[kTile] = {};
    bool rescaled = false;
    begin(kept, counted);
    if (fixed) {
        for (int64_t j = 0; j < cosines.columns; ++j) maxima[j] = totals[j].maximum;
        std::fill(maxima + cosines.columns, maxima + kTile, 1.0f);
        for_each_block(cosines, counted, tile, [&](int64_t i, int64_t j, const Block& block) {
            if (kept) block.store(kept + i * kTile + j, kTile);
            if (closer.count) closer.add_to_columns(counted.only(i, j, block, -INFINITY), j);
            const bool whole = counted.all(i, j);
            Vector down[kVectors] = {};
            SSLFAST_UNROLL
            for (int64_t r = 0; r < kRows; ++r)
                for (int64_t v = 0; v < kVectors; ++v) {
                    const int64_t at = j + v * kWidth;
                    const Vector e = exponential(block.at[r][v], load(maxima + at));
                    const Vector counts = whole ? e : counted.only(i + r, at, e);
                    down[v] += counts;
                    store(counts, tile + (i + r) * kTile + at);
                }
            for (int64_t v = 0; v < kVectors; ++v) {
                float* const column = sums + j + v * kWidth;
                store(load(column) + down[v], column);
            }
        });
    } else {
        std::fill_n(maxima, kTile, kNothing);
        for_each_block(cosines, counted, tile, [&](int64_t i, int64_t j, const Block& block) {
            if (kept) block.store(kept + i * kTile + j, kTile);
            if (closer.count) closer.add_to_columns(counted.only(i, j, block, -INFINITY), j);
            const bool whole = counted.all(i, j);
            for (int64_t r = 0; r < kRows; ++r)
                for (int64_t v = 0; v < kVectors; ++v) {
                    const int64_t at = j + v * kWidth;
                    const Vector c = maximum(all(kNothing), block.at[r][v]);  // minus infinity would meet its opposite
                    const Vector counts = whole ? c : counted.only(i + r, at, c, kNothing);
                    store(maximum(counts, load(maxima + at)), maxima + at);
                    store(counts, tile + (i + r) * kTile + at);
                }
        });
        for (int64_t j = 0; j < cosines.columns; ++j) {
            maxima[j] = std::max(totals[j].maximum, maxima[j]);
            rescale[j] = float(tau.exponential(totals[j].maximum, maxima[j]));
            rescaled |= totals[j].maximum != maxima[j];
            totals[j] = {maxima[j], totals[j].sum * rescale[j]};
            if (maxima[j] == kNothing) maxima[j] = 0;  // so that nothing is far below it
        }
        for (int64_t i = 0; i < cosines.rows; ++i)
            for (int64_t j = 0; j < width; j += kWidth) {
                float* const place = tile + i * kTile + j;
                const Vector e = exponential(load(place), load(maxima + j));
                store(load(sums + j) + e, sums + j);
                store(e, place);
            }
    }
    for (int64_t j = 0; j < cosines.columns; ++j) totals[j].sum += sums[j];
    return rescaled;
}

Factors::Factors(const float* factor, const float* factor2, const float* shift, int64_t count, int64_t padded_count,
                 const Temperature& tau)
    : factor_(padded_count), shift_(padded_count) {
    std::fill_n(factor_.get(), padded_count, 0.0f);
    std::fill_n(shift_.get(), padded_count, factor ? 1.0f : -kNothing);  // beyond all dot products
    if (!factor) return;
    for (int64_t i = 0; i < count; ++i) {
        const double whole = double(factor[i]) * (factor2 ? factor2[i] : 1);
        factor_.get()[i] = float(tau.fixed ? whole * tau.exponential(1, shift[i]) : whole);
        shift_.get()[i] = tau.fixed ? 1 : shift[i];
    }
}

void weights_tile(const Cosines& cosines, const Counted& counted, const Temperature& tau, bool fixed,
                  const Factors::Part& row, const Factors::Part& column, float* weights) {
    // Captured by value: what is behind a reference would be read again after every store.
    const auto run = [&](auto weight) {
        for_each_block(cosines, counted, weights, [=, &counted](int64_t i, int64_t j, const Block& block) {
            float* const to = weights + i * kTile + j;
            SSLFAST_UNROLL
            for (int64_t r = 0; r < kRows; ++r)
                for (int64_t v = 0; v < kVectors; ++v)
                    store(weight(block.at[r][v], i + r, j + v * kWidth), to + r * kTile + v * kWidth);
            if (counted.all(i, j)) return;
            for (int64_t r = 0; r < kRows; ++r)
                for (int64_t v = 0; v < kVectors; ++v) {
                    float* const place = to + r * kTile + v * kWidth;
                    store(counted.only(i + r, j + v * kWidth, load(place)), place);
                }
        });
    };
    const Exponential exponential(tau);
    if (fixed)
        run([=](const Vector& c, int64_t i, int64_t j) {
            return exponential(c, all(1)) * (row.factor[i] + load(column.factor + j));
        });
    else
        run([=](const Vector& c, int64_t i, int64_t j) {
            return row.factor[i] * exponential(c, all(row.shift[i])) +
                   load(column.factor + j) * exponential(c, load(column.shift + j));
        });
}

}  // namespace sslfast::cpu
