// The arithmetic that this CPU can do at most: the roof against which benchmarks tell the ops.
#pragma once

#include <cstdint>

namespace sslfast::cpu {

// Multiplies and adds in registers, `rounds` times on each thread; returns the operations of all threads.
int64_t multiply_and_add(int64_t rounds);

}  // namespace sslfast::cpu
