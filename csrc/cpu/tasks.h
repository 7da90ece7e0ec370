// Work handed out as threads come free: one that has lost its core holds up nobody but at the end.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "cpu/buffer.h"
#include "cpu/late_threads.h"

#ifdef _OPENMP
extern "C" int omp_get_max_threads(), omp_get_thread_num();  // clang may come without the header
#endif

namespace sslfast::cpu {

// Less work than this, in multiplications, is not worth waking threads for.
inline constexpr int64_t kSerialWork = 1 << 19;

// That a parallel region has at most.
inline int64_t thread_count() {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

// That which asks, among those of its region.
inline int64_t thread_number() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

// f(task, scratch) for `count` tasks, on all threads if `work` is worth it; take(thread) is the next one for it, or -1. Every
// thread has `floats` of scratch of its own.
template <typename Take, typename F>
void hand_out(int64_t count, int64_t work, int64_t floats, const Take& take, const F& f) {
    const auto run = [&](int64_t thread) {
        const Buffer scratch(floats);
        int64_t own = 0;
        for (int64_t task; (task = take(thread)) >= 0; ++own) f(task, scratch.get());
        return own;
    };
    if (count < 2 || work <= kSerialWork || LateThreads::expected(work)) {
        run(0);
        return;
    }
    LateThreads threads(work);
#pragma omp parallel
    {
        const int64_t own = run(thread_number());
#pragma omp master
        threads.done(double(own) / double(count));
    }
    threads.ended();
}

// f(task, scratch) for the tasks 0, 1 … count - 1, begun in this order.
template <typename F>
void for_each_task(int64_t count, int64_t work, int64_t floats, const F& f) {
    std::atomic<int64_t> next{0};
    const auto take = [&](int64_t) {
        const int64_t task = next.fetch_add(1, std::memory_order_relaxed);
        return task < count ? task : -1;
    };
    hand_out(count, work, floats, take, f);
}

// f(begin, end, scratch) for pieces of `size` of the numbers 0 … count - 1. A thread begins with a run of neighbours, the same
// one in every region: what it wrote in the last region is in its own cache. Then it takes what others have not begun.
template <typename F>
void for_each_piece(int64_t count, int64_t size, int64_t work, int64_t floats, const F& f) {
    struct alignas(64) Run {
        std::atomic<int64_t> next;
        int64_t end;
    };
    const int64_t pieces = (count + size - 1) / size, threads = std::min(thread_count(), std::max<int64_t>(pieces, 1));
    std::vector<Run> runs(threads);
    for (int64_t t = 0; t < threads; ++t) runs[t].next = pieces * t / threads, runs[t].end = pieces * (t + 1) / threads;
    const auto take = [&](int64_t thread) {
        for (int64_t t = 0; t < threads; ++t) {
            Run& run = runs[(thread + t) % threads];
            if (run.next.load(std::memory_order_relaxed) >= run.end) continue;
            const int64_t piece = run.next.fetch_add(1, std::memory_order_relaxed);
            if (piece < run.end) return piece;
        }
        return int64_t(-1);
    };
    hand_out(pieces, work, floats, take, [&](int64_t piece, float* scratch) {
        f(piece * size, std::min(count, (piece + 1) * size), scratch);
    });
}

}  // namespace sslfast::cpu
