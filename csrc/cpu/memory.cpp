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

constexpr int64_t kMostBytes = int64_t(1) << 29;  // kept in all
constexpr std::size_t kMost = 4;                  // blocks kept
constexpr std::size_t kPage = 4096;               // bytes

struct Kept {
    std::mutex lock;
    std::vector<Block> blocks;  // the longest free first
};

// Never destroyed: tensors may be freed after everything else.
Kept& kept() {
    static Kept* const all = new Kept;
    return *all;
}

}  // namespace

Memory::Memory(int64_t size) : data(nullptr), bytes(size) {
    {
        const std::lock_guard<std::mutex> guard(kept().lock);
        auto& blocks = kept().blocks;
        const auto fits = [size](const Block& block) { return block.bytes == size; };
        const auto found = std::find_if(blocks.rbegin(), blocks.rend(), fits);
        if (found != blocks.rend()) {
            data = found->data;
            blocks.erase(std::next(found).base());
        }
    }
    if (!data) data = std::aligned_alloc(kPage, (std::size_t(size) + kPage - 1) / kPage * kPage);
    if (!data) throw std::bad_alloc();
}

Memory::~Memory() {
    const std::lock_guard<std::mutex> guard(kept().lock);
    auto& blocks = kept().blocks;
    blocks.push_back({data, bytes});
    int64_t total = 0;
    for (const Block& block : blocks) total += block.bytes;
    while (blocks.size() > kMost || total > kMostBytes) {
        total -= blocks.front().bytes;
        std::free(blocks.front().data);
        blocks.erase(blocks.begin());
    }
}

void Memory::release() {
    const std::lock_guard<std::mutex> guard(kept().lock);
    for (const Block& block : kept().blocks) std::free(block.data);
    kept().blocks.clear();
}

}  // namespace sslfast::cpu
