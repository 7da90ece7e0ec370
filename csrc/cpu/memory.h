// Memory for large results, which serves the next result of its size when it is free again.
#pragma once

#include <cstdint>

namespace sslfast::cpu {

// malloc maps large memory anew for every tensor, and the first touches of its pages cost several times what the kernels
// do. So the last few blocks that became free are kept, 512 MiB at most, as PyTorch's allocator does on GPUs.
class Memory {
public:
    explicit Memory(int64_t bytes);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    // Gives back what is kept.
    static void release();

    void* data;
    const int64_t bytes;
};

}  // namespace sslfast::cpu
