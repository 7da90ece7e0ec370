// The softmax over a block of negatives: rows against columns, all of unit length, tile by tile, never held.
#pragma once

#include <cstdint>

#include "cpu/contrastive.h"

namespace sslfast::cpu {

// Of every row: shift, the sum over the columns of exp((cosine - shift)/tau), but for that of its own number if
// skip_diagonal, and, unless null, the columns weighted by these, (count, dim).
void negatives_forward(const Rows& rows, int64_t count, const Rows& columns, int64_t column_count, bool skip_diagonal,
                       double tau, float* shift, float* sum, const Rows* weighted);

// out (count, dim) = sum over j of (row_factor_i exp((c_ij - row_shift_i)/tau) + the same of column j) columns_j; factors
// may be null.
void negatives_backward(const Rows& rows, int64_t count, const Rows& columns, int64_t column_count, bool skip_diagonal,
                        const float* row_factor, const float* row_shift, const float* column_factor,
                        const float* column_shift, double tau, const Rows& out);

}  // namespace sslfast::cpu
