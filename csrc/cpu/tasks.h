// Work handed out as threads come free: one that has lost its core holds up nobody but at the end.
#pragma once

#include <atomic>
#include <cstdint>

#include "cpu/buffer.h"
#include "cpu/late_threads.h"

#ifdef _OPENMP
extern "C" int omp_get_max_threads();  // clang may come without the header
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

}  // namespace sslfast::cpu
