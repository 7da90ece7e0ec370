// OpenMP's runtime on std::thread, as far as csrc needs it, for ThreadSanitizer: GCC's own synchronises by means that the
// sanitizer does not know, so that it would find races where there are none. Threads begin and end with their region, and
// how a loop is shared out orders nothing between them, as OpenMP promises no more.
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

namespace {

constexpr int kThreads = 4;  // of every region that is worth threads

struct Team {
    explicit Team(int size) : size(size) {}

    const int size;
    std::array<std::atomic<long>, 4> shared_out{};  // iterations of each loop of the region

    void wait() {
        std::unique_lock<std::mutex> guard(lock_);
        const int round = round_;
        if (++waiting_ == size) {
            waiting_ = 0, ++round_;
            all_here_.notify_all();
        } else {
            all_here_.wait(guard, [&] { return round_ != round; });
        }
    }

    std::mutex lock_;
    std::condition_variable all_here_;
    int waiting_ = 0, round_ = 0;
};

// Of the region and the loop that the thread is in.
struct Place {
    Team* team;
    int thread;
    int loops;  // begun
    long begin, end, chunk;
};

thread_local Place here;

}  // namespace

extern "C" {

int omp_get_max_threads() { return kThreads; }

void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned) {
    Team team(threads == 1 ? 1 : kThreads);
    const auto run = [&](int thread) {
        const Place outside = here;
        here = {&team, thread, 0, 0, 0, 0};
        team.wait();  // else the first thread would have done all before the last begins, and no two would ever meet
        body(data);
        here = outside;
    };
    std::vector<std::thread> others;
    for (int i = 1; i < team.size; ++i) others.emplace_back(run, i);
    run(0);
    for (std::thread& other : others) other.join();
}

int omp_get_thread_num() { return here.thread; }

bool GOMP_loop_nonmonotonic_dynamic_next(long* begin, long* end) {
    std::this_thread::yield();  // to those who have had nothing yet
    const long first = here.team->shared_out[here.loops - 1].fetch_add(here.chunk, std::memory_order_relaxed);
    *begin = here.begin + first;
    *end = *begin + here.chunk < here.end ? *begin + here.chunk : here.end;
    return *begin < here.end;
}

bool GOMP_loop_nonmonotonic_dynamic_start(long begin, long end, long step, long chunk, long* first, long* last) {
    if (step != 1 || here.loops == int(here.team->shared_out.size())) std::abort();
    here.begin = begin, here.end = end, here.chunk = chunk, ++here.loops;
    return GOMP_loop_nonmonotonic_dynamic_next(first, last);
}

void GOMP_loop_end_nowait() {}

void GOMP_loop_end() { here.team->wait(); }

}  // extern "C"
