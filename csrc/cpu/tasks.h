// Work handed out as threads come free: one that has lost its core holds up nobody but at the end.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/late_threads.h"

namespace sslfast::cpu {

// Less work than this, in multiplications, is not worth waking threads for.
inline constexpr int64_t kSerialWork = 1 << 19;

// f(task, scratch) for the tasks 0, 1 … count - 1, begun in this order, on all threads if `work` is worth it; every thread
// has `floats` of scratch of its own.
template <typename F>
void for_each_task(int64_t count, int64_t work, int64_t floats, const F& f) {
    std::atomic<int64_t> next{0};
    const auto run = [&] {
        const Buffer scratch(floats);
        int64_t own = 0;
        for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < count; ++own) f(task, scratch.get());
        return own;
    };
    if (count < 2 || work <= kSerialWork || LateThreads::expected(work)) {
        run();
        return;
    }
    LateThreads threads(work);
#pragma omp parallel
    {
        const int64_t own = run();
#pragma omp master
        threads.done(double(own) / double(count));
    }
    threads.ended();
}

// The pairs first <= second < blocks or, `across`, first < blocks / 2 <= second < blocks, in the rounds of a tournament: in
// every round each block stands in one pair. So two pairs of a round touch different blocks, and a block meets its others
// in one order.
class Tournament {
public:
    struct Pair {
        int64_t round, first, second;
    };

    explicit Tournament(int64_t blocks, bool across = false) : blocks_(blocks), across_(across) {}

    int64_t count() const { return across_ ? blocks_ / 2 * (blocks_ / 2) : blocks_ * (blocks_ + 1) / 2; }

    // In the order of the rounds; round r has the pairs whose sum is r modulo the number of blocks, or across those that
    // are r apart modulo half of it.
    Pair operator[](int64_t index) const {
        if (across_) {
            const int64_t half = blocks_ / 2, round = index / half, i = index % half;
            return {round, i, half + (i + round) % half};
        }
        const int64_t even = blocks_ / 2 + 1;  // pairs of an even round; two rounds have blocks + 1
        const int64_t rest = index % (blocks_ + 1), odd = rest >= even;
        const int64_t round = index / (blocks_ + 1) * 2 + odd, apart = odd ? rest - even : rest;
        const int64_t i = (round / 2 - apart + blocks_) % blocks_, j = ((round + 1) / 2 + apart) % blocks_;
        return {round, i < j ? i : j, i < j ? j : i};
    }

    // What prepare(pair, scratch) leaves in the scratch, add(pair, scratch) adds to the two blocks, when all pairs of
    // earlier rounds have been added to them: so neither the threads nor their number show in the sums. A thread that must
    // wait gives its core away.
    template <typename Prepare, typename Add>
    void run(int64_t work, int64_t floats, const Prepare& prepare, const Add& add) const {
        std::vector<std::atomic<int64_t>> rounds(blocks_);  // that a block has behind it
        const auto await = [&](int64_t block, int64_t round) {
            while (rounds[block].load(std::memory_order_acquire) != round) std::this_thread::yield();
        };
        for_each_task(count(), work, floats, [&](int64_t index, float* scratch) {
            const Pair pair = (*this)[index];
            prepare(pair, scratch);
            await(pair.first, pair.round);
            await(pair.second, pair.round);
            add(pair, scratch);
            rounds[pair.first].store(pair.round + 1, std::memory_order_release);
            rounds[pair.second].store(pair.round + 1, std::memory_order_release);
        });
    }

private:
    int64_t blocks_;
    bool across_;
};

}  // namespace sslfast::cpu
