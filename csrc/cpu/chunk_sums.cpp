#include "cpu/chunk_sums.h"

#include <algorithm>

#include "cpu/column_tiles.h"

namespace sslfast::cpu {
namespace {

constexpr int64_t kTasks = 64;      // wanted at least, for many threads
constexpr int64_t kLeastChunk = 8;  // tiles of columns of a chunk, so that its sums are little beside it
constexpr float kLongest = 1.1f;    // squared length of a column with which 1 still serves as the maximum

}  // namespace

ChunkSums::ChunkSums(int64_t rows, int64_t columns, int64_t depth, bool with_weighted, bool with_closer)
    : rows_(padded(rows, kTile)), depth_(depth), with_weighted_(with_weighted), weighted_(0) {
    const int64_t groups = count_of(rows, kGroup * kTile), tiles = count_of(columns, kTile);
    const int64_t wanted = count_of(kTasks, groups);
    chunk_tiles_ = std::max(std::min(kLeastChunk, tiles), count_of(tiles, wanted));
    chunks_ = count_of(tiles, chunk_tiles_);
    sums_.resize(chunks_ * rows_);
    if (with_weighted) weighted_ = Buffer(chunks_ * rows_ * depth_);
    if (with_closer) closer_.resize(chunks_ * rows_);
}

RunningSum ChunkSums::total(int64_t row, const Temperature& tau) const {
    RunningSum total = sums_[row];
    for (int64_t chunk = 1; chunk < chunks_; ++chunk) {
        const RunningSum& part = sums_[chunk * rows_ + row];
        total.merge(part.maximum, part.sum, tau);
    }
    return total;
}

int64_t ChunkSums::closer(int64_t row) const {
    int64_t count = 0;
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) count += closer_[chunk * rows_ + row];
    return count;
}

void ChunkSums::weighted(int64_t row, float shift, double factor, const Temperature& tau, float* out) const {
    std::fill_n(out, depth_, 0.0f);
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
        const float scale = float(factor * tau.exponential(sums_[chunk * rows_ + row].maximum, shift));
        const Strips part = weighted(chunk);
        for (int64_t k = 0; k < depth_; k += kPanel)
            for (int64_t j = 0; j < kPanel; ++j) out[k + j] += scale * part.at(row, k)[j];
    }
}

ChunkSums negative_sums(const Packed& rows, int64_t count, const Rows& columns, int64_t first_column,
                        int64_t column_count, const Omitted& omitted, const Temperature& tau, bool with_weighted,
                        const Positives* positives, const Kept& kept) {
    ChunkSums sums(count, column_count, rows.depth(), with_weighted, positives);
    const int64_t blocks = count_of(count, kTile);
    for_each_tile(
        rows, count, columns, first_column, column_count, sums, with_weighted ? 2 : 1,
        [&](int64_t chunk, const ColumnTile& part, int64_t at, int64_t i, int64_t size, float* tile, bool first) {
            RunningSum* const totals = sums.sums(chunk) + i;
            if (first) std::fill_n(totals, kTile, RunningSum{tau.fixed ? 1 : kNothing, 0});
            float rescale[kTile];
            const bool fixed = tau.fixed && part.longest <= kLongest;
            const Closer closer = positives ? positives->from(i, sums.closer_of(chunk) + i) : Closer{};
            const bool rescaled =
                exponentials_tile(cosines_of(part, rows, i, size),
                                  omitted.negatives(at, part.count, i, size), tau, fixed,
                                  kept.tile(at / kTile * blocks + i / kTile), closer, tile, totals, rescale);
            if (!with_weighted) return;
            const Strips out = sums.weighted(chunk);
            if (rescaled && !first)
                for (int64_t row = 0; row < size; ++row)
                    for (int64_t k = 0; k < out.depth; k += kPanel)
                        for (int64_t j = 0; j < kPanel; ++j) out.at(i + row, k)[j] *= rescale[row];
            if (part.operand.paired) pair_weights(tile, part.count, size);
            sum_rows(tile, part.count, size, false, part.operand, 0, out, i, first);
        });
    return sums;
}

}  // namespace sslfast::cpu
