#include "cpu/late_threads.h"

#include <time.h>

#include <algorithm>
#include <atomic>
#include <limits>

namespace sslfast::cpu {
namespace {

constexpr double kWorthwhile = 1.5;        // times what one thread takes: threads are waited for that long
constexpr int64_t kWhile = 32;             // times what was lost, until threads are tried again
constexpr int64_t kLongest = 1000000000;   // nanoseconds until then, at most

std::atomic<int64_t> held_up_until{0}, held_up_work{0};

int64_t nanoseconds(clockid_t clock) {
    timespec now;
    clock_gettime(clock, &now);
    return int64_t(now.tv_sec) * 1000000000 + now.tv_nsec;
}

}  // namespace

bool LateThreads::expected(int64_t work) {
    return work <= held_up_work.load(std::memory_order_relaxed) &&
           nanoseconds(CLOCK_MONOTONIC) < held_up_until.load(std::memory_order_relaxed);
}

LateThreads::LateThreads(int64_t work)
    : work_(work), begin_(nanoseconds(CLOCK_MONOTONIC)), own_(nanoseconds(CLOCK_THREAD_CPUTIME_ID)), alone_(0) {}

void LateThreads::done(double share) {
    const int64_t own = nanoseconds(CLOCK_THREAD_CPUTIME_ID) - own_;
    alone_ = share > 0 ? double(own) / share : std::numeric_limits<double>::infinity();
}

void LateThreads::ended() const {
    const int64_t now = nanoseconds(CLOCK_MONOTONIC);
    const double lost = double(now - begin_) - kWorthwhile * alone_;
    if (lost <= 0) return;
    held_up_work.store(work_, std::memory_order_relaxed);
    held_up_until.store(now + std::min(int64_t(lost) * kWhile, kLongest), std::memory_order_relaxed);
}

}  // namespace sslfast::cpu
