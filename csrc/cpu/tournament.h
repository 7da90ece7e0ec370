// The pairs of blocks of rows, whose sums are to be added to both: in an order that neither the threads nor their number change.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/tasks.h"

namespace sslfast::cpu {

// The pairs first <= second < blocks or, `across`, first < blocks / 2 <= second < blocks. Teams of blocks meet in the rounds of
// a tournament, and in a match the blocks of two teams in as many steps as a team has: so in every step of a round each
// block stands in one pair, and it meets its others in one order. A thread plays a whole match, whose blocks then stay in
// its cache; where there are few matches for many threads, single pairs.
class Tournament {
public:
    struct Pair {
        int64_t first, second;
        bool begins_first, begins_second;  // whether nothing was added to them before
    };

    explicit Tournament(int64_t blocks, bool across = false)
        : across_(across),
          blocks_(across ? blocks / 2 : blocks),
          size_(blocks_ < 8 ? 1 : blocks_ < 16 ? 2 : blocks_ < 128 ? 4 : 8),  // as measured on Zen 5
          teams_((blocks_ + size_ - 1) / size_) {}

    // What prepare(pair, scratch) leaves in the scratch, add(pair, scratch) adds to the two blocks, when all their pairs of
    // earlier steps have been added to them. A thread that must wait gives its core away.
    template <typename Prepare, typename Add>
    void run(int64_t work, int64_t floats, const Prepare& prepare, const Add& add) const {
        std::vector<std::atomic<int64_t>> steps((1 + across_) * teams_ * size_);  // that a block has behind it
        std::vector<char> begun(steps.size());
        const auto play = [&](int64_t round, int64_t match, int64_t step, int64_t slot, float* scratch) {
            const Teams teams = teams_of(round, match);
            const bool diagonal = teams.first == teams.second;
            const int64_t other = (diagonal ? step - slot + size_ : step + slot) % size_;
            if (teams.none || (diagonal && other < slot)) return;  // it is another match, or slot
            const int64_t i = teams.first * size_ + slot, j = teams.second * size_ + other, now = round * size_ + step;
            const int64_t first = block(i), second = block(j);
            const bool real = first >= 0 && second >= 0;
            if (real) prepare(Pair{first, second, false, false}, scratch);
            for (const int64_t at : {i, j})
                while (steps[at].load(std::memory_order_acquire) != now) std::this_thread::yield();
            if (real) {
                const bool begins_first = !std::exchange(begun[i], true), begins_second = !std::exchange(begun[j], true);
                add(Pair{first, second, begins_first, begins_second}, scratch);
            }
            for (const int64_t at : {i, j}) steps[at].store(now + 1, std::memory_order_release);
        };
        const int64_t matches = matches_of_a_round(), all = teams_ * matches;
        if (size_ > 1 && all >= kMatches * thread_count())
            for_each_task(all, work, floats, [&](int64_t task, float* scratch) {
                for (int64_t step = 0; step < size_; ++step)
                    for (int64_t slot = 0; slot < size_; ++slot) play(task / matches, task % matches, step, slot, scratch);
            });
        else
            for_each_task(all * size_ * size_, work, floats, [&](int64_t task, float* scratch) {
                const int64_t slot = task % size_, match = task / size_ % matches, step = task / size_ / matches;
                play(step / size_, match, step % size_, slot, scratch);
            });
    }

private:
    static constexpr int64_t kMatches = 3;  // a thread, so that none has much less to do than another

    struct Teams {
        int64_t first, second;
        bool none;
    };

    int64_t matches_of_a_round() const { return across_ ? teams_ : teams_ / 2 + 1; }

    // Round r has the teams whose sum is r modulo their number, or across those that are r apart.
    Teams teams_of(int64_t round, int64_t match) const {
        if (across_) return {match, teams_ + (match + round) % teams_, false};
        const int64_t i = (round / 2 - match + teams_) % teams_, j = ((round + 1) / 2 + match) % teams_;
        const bool again = round % 2 && teams_ % 2 == 0 && match == teams_ / 2;  // in such rounds there is one less
        return {std::min(i, j), std::max(i, j), again};
    }

    // The block of this place among those of all teams, or -1 where the last team of a part has none.
    int64_t block(int64_t place) const {
        const int64_t part = place / (teams_ * size_), at = place % (teams_ * size_);
        return at < blocks_ ? part * blocks_ + at : -1;
    }

    bool across_;
    int64_t blocks_, size_, teams_;  // of one part: blocks, of a team, teams
};

}  // namespace sslfast::cpu
