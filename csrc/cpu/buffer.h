// Scratch memory of the contrastive losses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace sslfast::cpu {

// Uninitialised floats, aligned to a line of the cache. They lie where a buffer of the same size lay before, if one did:
// pages that the system gives anew cost a tenth of what is computed in them.
class Buffer {
public:
    explicit Buffer(int64_t floats);
    float* get() const { return data_.get(); }

private:
    struct Keep {
        size_t bytes;
        void operator()(float* data) const;
    };
    std::unique_ptr<float, Keep> data_;
};

// Give the memory of former buffers back to the system.
void release_buffers();

}  // namespace sslfast::cpu
