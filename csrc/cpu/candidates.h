// Whom a query is to find among the candidates, and who of the others is no negative of it.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/tile.h"

namespace sslfast::cpu {

// What Python says of n queries and m candidates: their targets, or null for the first n candidates; and the ids of the
// candidates, or null where all differ. A candidate of the target's id is no negative.
struct Choice {
    int64_t n, m;
    const int64_t* targets;
    const int32_t* ids;
};

class Candidates {
public:
    explicit Candidates(const Choice& choice);

    int64_t target(int64_t query) const { return targets_.empty() ? query : targets_[query]; }
    const Omitted& omitted() const { return omitted_; }

    // sum (depth) = those of the queries (rows of `unit`) that are to find the candidate, times their weights.
    void pull(int64_t candidate, const Rows& unit, const float* weights, float* row, float* sum, int64_t depth) const;

private:
    int64_t n_;
    std::vector<int64_t> targets_;
    std::vector<int64_t> first_, queries_;  // those of a candidate, one candidate's behind the other's
    Omitted omitted_;
};

}  // namespace sslfast::cpu
