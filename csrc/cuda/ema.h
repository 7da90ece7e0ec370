// target <- momentum * target + (1 - momentum) * source for a table of tensors, in place, in one launch.
#pragma once

#include "common/ema.h"

namespace sslfast::cuda {

inline constexpr int64_t kEmaChunk = 8192;  // elements of one block

// pairs and chunks lie on the device; a chunk is (row of pairs << 32 | number of the chunk in that tensor). The device
// scalars momentum_at (float, or double with momentum_is_double) and step_at replace their numbers where not null.
// stream is a cudaStream_t of the current device.
void ema_update(const EmaPair* pairs, const uint64_t* chunks, int64_t chunk_count, double momentum,
                const void* momentum_at, bool momentum_is_double, uint64_t step, const uint64_t* step_at, void* stream);

}  // namespace sslfast::cuda
