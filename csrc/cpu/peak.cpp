#include "cpu/peak.h"

#include "common/simd.h"

namespace sslfast::cpu {
namespace {

constexpr int64_t kChains = 12;  // one multiply-add waits for the last of its chain: two units need eight to ten of them

}  // namespace

int64_t multiply_and_add(int64_t rounds) {
    int64_t operations = 0;
#pragma omp parallel reduction(+ : operations)
    {
        Part chain[kChains];
        for (int64_t i = 0; i < kChains; ++i) chain[i] = Part{} + float(rounds + i);  // all of them must be computed
        for (int64_t round = 0; round < rounds; ++round) {
            SSLFAST_UNROLL
            for (int64_t i = 0; i < kChains; ++i) chain[i] = chain[i] * 0.75f + 0.25f;
        }
        volatile float sink = 0;  // somebody has to want the results
        for (const Part& x : chain) sink = x[0];
        static_cast<void>(sink);
        operations += 2 * rounds * kChains * kWidth;
    }
    return operations;
}

}  // namespace sslfast::cpu
