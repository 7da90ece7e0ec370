// Hints to the memory that change no result.
#pragma once

#include <cstdint>

namespace sslfast::cpu {

// A large buffer that nothing has written to yet shall come in huge pages: the first touch of 4 KiB pages, thousands of
// them, costs more than what the kernels do. The same as PyTorch does with THP_MEM_ALLOC_ENABLE=1.
void advise_huge_pages(void* data, int64_t bytes);

constexpr int64_t kLine = 64;  // bytes of a cache line

inline void prefetch(const void* data, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(static_cast<const char*>(data) + at);
}

}  // namespace sslfast::cpu
