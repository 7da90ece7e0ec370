// The softmax over a block of negatives: rows against columns, all of unit length, tile by tile, never held.
#pragma once

#include <cstdint>

#include "cpu/contrastive.h"

namespace sslfast::cpu {

// Of every row: shift, the sum of exp((cosine - shift)/tau) over the columns that are not omitted, and, unless null, the
// columns weighted by these, (count, dim). Omitted are the column of the row's own number, if skip_diagonal, and those of
// its id, unless the ids are null. Unless null, rank counts the others that are closer than the row of `positives`.
void negatives_forward(const Rows& rows, int64_t count, const Rows& columns, int64_t column_count, bool skip_diagonal,
                       const int32_t* row_ids, const int32_t* column_ids, const Rows* positives, double tau, float* shift,
                       float* sum, const Rows* weighted, int64_t* rank);

// out (count, dim) = sum over j of (row_factor_i exp((c_ij - row_shift_i)/tau) + the same of column j) columns_j; factors
// may be null.
void negatives_backward(const Rows& rows, int64_t count, const Rows& columns, int64_t column_count, bool skip_diagonal,
                        const int32_t* row_ids, const int32_t* column_ids, const float* row_factor,
                        const float* row_shift, const float* column_factor, const float* column_shift, double tau,
                        const Rows& out);

// The same of rows among themselves, each with all others that have not its id; the factors are those of both sides, and
// every cosine is computed once. Unless there are no labels: forward the sum of the cosines of the pairs of one label, also
// of those that are omitted, backward less the sum of (pull_i + pull_j) rows_j over these. Unless null, rank counts the
// negatives that are closer than the row that is half of all rows apart. `kept` is the same for both passes.
void negatives_among_forward(const Rows& rows, int64_t count, const int32_t* ids, const int32_t* labels, double tau,
                             float* shift, float* sum, float* positive, int64_t* rank, const Kept& kept);
void negatives_among_backward(const Rows& rows, int64_t count, const int32_t* ids, const int32_t* labels,
                              const float* factor, const float* shift, const float* pull, const Kept& kept, double tau,
                              const Rows& out);

}  // namespace sslfast::cpu
