// Softmax sums of rows over columns, tile by tile; the columns in chunks, so that a few rows keep many threads busy.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/softmax_tile.h"

namespace sslfast::cpu {

// Tiles of rows that share a tile of columns while it is in the cache.
inline constexpr int64_t kGroup = 2;

// Of every row and chunk the sum of the exponentials and, if wanted, the columns weighted by them.
class ChunkSums {
public:
    ChunkSums(int64_t rows, int64_t columns, int64_t depth, bool with_weighted, bool with_closer = false);

    RunningSum total(int64_t row, const Temperature& tau) const;
    // factor * the weighted columns relative to `shift`.
    void weighted(int64_t row, float shift, double factor, const Temperature& tau, float* out) const;

    // The negatives of a row that are closer than its positive.
    int64_t closer(int64_t row) const;

    int64_t chunks() const { return chunks_; }
    int64_t chunk_tiles() const { return chunk_tiles_; }
    RunningSum* sums(int64_t chunk) { return sums_.data() + chunk * rows_; }
    Strips weighted(int64_t chunk) const { return {depth_, weighted_.get() + chunk * rows_ * depth_}; }
    int32_t* closer_of(int64_t chunk) { return closer_.data() + chunk * rows_; }
    bool with_weighted() const { return with_weighted_; }

private:
    int64_t rows_, depth_, chunk_tiles_, chunks_;
    bool with_weighted_;
    std::vector<RunningSum> sums_;
    std::vector<int32_t> closer_;
    Buffer weighted_;
};

// Of packed `rows` (count) the sums over those of `columns` (column_count) that are not omitted. The columns may
// be of any length. With positives, those closer than these are counted. The tile of column block i and row block j is
// kept as number i * row blocks + j.
ChunkSums negative_sums(const Packed& rows, int64_t count, const Rows& columns, int64_t first_column,
                        int64_t column_count, const Omitted& omitted, const Temperature& tau, bool with_weighted,
                        const Positives* positives, const Kept& kept);

}  // namespace sslfast::cpu
