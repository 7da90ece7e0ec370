#include "cpu/buffer.h"

#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace sslfast::cpu {
namespace {

constexpr size_t kMost = size_t(64) << 20;  // bytes kept at most
constexpr int kTries = 100;

// The memory of buffers that are gone. Where its lock stays closed, as in a process forked while a thread held it, it is
// empty and keeps nothing.
class Pool {
public:
    void* take(size_t bytes) {
        const Lock lock(*this);
        if (!lock) return nullptr;
        for (size_t i = pieces_.size(); i-- > 0;)
            if (pieces_[i].bytes == bytes) return remove(i);
        return nullptr;
    }

    bool keep(void* data, size_t bytes) {
        const Lock lock(*this);
        if (!lock || bytes > kMost) return false;
        while (total_ + bytes > kMost) std::free(remove(0));
        pieces_.push_back({data, bytes});
        total_ += bytes;
        return true;
    }

    void release() {
        const Lock lock(*this);
        while (lock && !pieces_.empty()) std::free(remove(pieces_.size() - 1));
    }

private:
    struct Piece {
        void* data;
        size_t bytes;
    };

    struct Lock : std::unique_lock<std::mutex> {
        explicit Lock(Pool& pool) : unique_lock(pool.mutex_, std::try_to_lock) {
            for (int tries = 0; !owns_lock() && tries < kTries; ++tries) {
                std::this_thread::yield();
                (void)try_lock();
            }
        }
    };

    void* remove(size_t i) {
        const Piece piece = pieces_[i];
        pieces_.erase(pieces_.begin() + i);
        total_ -= piece.bytes;
        return piece.data;
    }

    std::mutex mutex_;
    std::vector<Piece> pieces_;  // the oldest first
    size_t total_ = 0;
};

Pool& pool() {
    static Pool* const pool = new Pool;  // never destroyed: threads may outlive the module
    return *pool;
}

}  // namespace

Buffer::Buffer(int64_t floats) : data_(nullptr, Keep{(size_t(floats) * sizeof(float) / 64 + 1) * 64}) {
    const size_t bytes = data_.get_deleter().bytes;
    void* data = pool().take(bytes);
    if (!data) data = std::aligned_alloc(64, bytes);
    if (!data) throw std::bad_alloc();
    data_.reset(static_cast<float*>(data));
}

void Buffer::Keep::operator()(float* data) const {
    if (!pool().keep(data, bytes)) std::free(data);
}

void release_buffers() { pool().release(); }

}  // namespace sslfast::cpu
