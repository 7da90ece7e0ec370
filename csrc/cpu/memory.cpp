#include "cpu/memory.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace sslfast::cpu {
namespace {

struct Block {
    void* data;
    int64_t bytes;
};

constexpr std::size_t kKept = 4;    // blocks
constexpr std::size_t kPage = 4096;  // bytes

std::mutex lock;
std::vector<Block> kept;  // the longest free first

}  // namespace

Memory::Memory(int64_t size) : data(nullptr), bytes(size) {
    {
        const std::lock_guard<std::mutex> guard(lock);
        const auto fits = [size](const Block& block) { return block.bytes == size; };
        const auto found = std::find_if(kept.rbegin(), kept.rend(), fits);
        if (found != kept.rend()) {
            data = found->data;
            kept.erase(std::next(found).base());
        }
    }
    if (!data) data = std::aligned_alloc(kPage, (std::size_t(size) + kPage - 1) / kPage * kPage);
    if (!data) throw std::bad_alloc();
}

Memory::~Memory() {
    const std::lock_guard<std::mutex> guard(lock);
    kept.push_back({data, bytes});
    if (kept.size() <= kKept) return;
    std::free(kept.front().data);
    kept.erase(kept.begin());
}

}  // namespace sslfast::cpu
