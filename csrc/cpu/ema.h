// target <- momentum * target + (1 - momentum) * source for a table of tensors, in place, in one pass over all of them.
#pragma once

#include "common/ema.h"

namespace sslfast::cpu {

// `step` seeds the stochastic rounding of bfloat16 targets; the bits depend on it and on an element's place alone.
void ema_update(const EmaPair* pairs, int64_t count, double momentum, uint64_t step);

}  // namespace sslfast::cpu
