#include "cpu/memory.h"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace sslfast::cpu {

void advise_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#ifdef __linux__
    const auto page = std::uintptr_t(sysconf(_SC_PAGESIZE));
    const auto first = (std::uintptr_t(data) + page - 1) / page * page, last = (std::uintptr_t(data) + bytes) / page * page;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace sslfast::cpu
