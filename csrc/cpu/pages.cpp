#include "cpu/pages.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace sslfast::cpu {

void prefer_huge_pages([[maybe_unused]] void* array, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t kPage = uintptr_t(1) << 21;
    const uintptr_t start = reinterpret_cast<uintptr_t>(array);
    const uintptr_t first = (start + kPage - 1) / kPage * kPage, last = (start + uintptr_t(bytes)) / kPage * kPage;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace sslfast::cpu
