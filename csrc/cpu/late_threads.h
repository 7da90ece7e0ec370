// When the threads of a parallel region hold each other up.
#pragma once

#include <cstdint>

namespace sslfast::cpu {

// A parallel region ends when all of its threads have come and gone. One that has lost its core to another process comes
// some milliseconds late, which may be longer than one thread takes for all the work. Where that was so, work that is not
// larger is done by the calling thread alone for a while.
class LateThreads {
public:
    // Whether work of this size was held up lately.
    static bool expected(int64_t work);

    // Begins with a parallel region.
    explicit LateThreads(int64_t work);
    // The calling thread has done this share of the work, of which nothing is left to begin.
    void done(double share);
    // The region has ended.
    void ended() const;

private:
    int64_t work_, begin_, own_;  // nanoseconds
    double alone_;                // that the calling thread would have needed for the work
};

}  // namespace sslfast::cpu
