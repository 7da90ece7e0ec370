#include "cpu/candidates.h"

#include <algorithm>
#include <numeric>

namespace sslfast::cpu {
namespace {

Omitted omitted_of(const Choice& choice) {
    if (!choice.targets && !choice.ids) return {true};
    std::vector<int32_t> of_targets(choice.n), all(choice.m);
    std::iota(all.begin(), all.end(), 0);
    const int32_t* const ids = choice.ids ? choice.ids : all.data();
    for (int64_t i = 0; i < choice.n; ++i) of_targets[i] = ids[choice.targets ? choice.targets[i] : i];
    return {false, {of_targets.data(), choice.n}, {ids, choice.m}};
}

}  // namespace

Candidates::Candidates(const Choice& choice) : n_(choice.n), omitted_(omitted_of(choice)) {
    if (!choice.targets) return;
    targets_.assign(choice.targets, choice.targets + n_);
    first_.resize(choice.m + 1);
    for (const int64_t target : targets_) ++first_[target + 1];
    std::partial_sum(first_.begin(), first_.end(), first_.begin());
    queries_.resize(n_);
    std::vector<int64_t> next = first_;
    for (int64_t i = 0; i < n_; ++i) queries_[next[targets_[i]]++] = i;
}

void Candidates::pull(int64_t candidate, const Rows& unit, const float* weights, float* row, float* sum,
                      int64_t depth) const {
    std::fill_n(sum, depth, 0.0f);
    const auto add = [&](int64_t query) {
        unit.read(query, row);
        for (int64_t k = 0; k < depth; ++k) sum[k] += weights[query] * row[k];
    };
    if (targets_.empty()) {
        if (candidate < n_) add(candidate);
        return;
    }
    for (int64_t at = first_[candidate]; at < first_[candidate + 1]; ++at) add(queries_[at]);
}

}  // namespace sslfast::cpu
