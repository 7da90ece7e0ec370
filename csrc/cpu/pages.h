// How the operating system maps large new arrays.
#pragma once

#include <cstdint>

namespace sslfast::cpu {

// Asks for pages of 2 MiB wherever one lies wholly inside [array, array + bytes): zeroing a new array page by page costs
// more than filling it. Only a hint; what the array holds stays.
void prefer_huge_pages(void* array, int64_t bytes);

}  // namespace sslfast::cpu
