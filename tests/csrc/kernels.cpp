// Runs CPU kernels on vectors of a file, away from Python: how the build for another architecture is tested in an emulator.
//   kernels INPUT OUTPUT: INPUT is a sequence of arrays, each its count of bytes (int64) and its bytes; OUTPUT likewise.
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <vector>

#include "cpu/ema.h"
#include "cpu/gather_tokens.h"
#include "cpu/info_nce.h"
#include "cpu/masked_patch_loss.h"
#include "cpu/negative_cosine_similarity.h"
#include "cpu/nt_xent.h"
#include "cpu/random_patch_mask.h"
#include "cpu/restore_tokens.h"

namespace cpu = sslfast::cpu;

namespace {

class Arrays {
public:
    explicit Arrays(const char* path) : file_(path, std::ios::binary) {}

    template <typename T>
    std::vector<T> next() {
        int64_t bytes = -1;
        file_.read(reinterpret_cast<char*>(&bytes), 8);
        if (!file_ || bytes < 0) throw std::runtime_error("the input ends too early");
        std::vector<T> array(bytes / sizeof(T));
        file_.read(reinterpret_cast<char*>(array.data()), bytes);
        return array;
    }

private:
    std::ifstream file_;
};

template <typename T>
void write(std::ofstream& out, const std::vector<T>& array) {
    const int64_t bytes = array.size() * sizeof(T);
    out.write(reinterpret_cast<const char*>(&bytes), 8);
    out.write(reinterpret_cast<const char*>(array.data()), bytes);
}

}  // namespace

int main(int count, char** words) {
    if (count != 3) return 2;
    Arrays in(words[1]);
    std::ofstream out(words[2], std::ios::binary);
    const auto sizes = in.next<int64_t>();  // batch, patches, kept, dim; channels, height, width, patch size; wide
    const int64_t batch = sizes[0], patches = sizes[1], kept = sizes[2], dim = sizes[3];

    const auto noise = in.next<float>();
    std::vector<int64_t> keep(batch * kept), restore(batch * patches);
    std::vector<uint8_t> mask(batch * patches);
    cpu::random_patch_mask_from_noise(noise.data(), batch, patches, kept, keep.data(), restore.data(), mask.data());
    write(out, keep), write(out, restore), write(out, mask);

    const auto tokens = in.next<float>();
    std::vector<float> visible(batch * kept * dim), decoded(batch * patches * dim);
    cpu::gather_tokens(reinterpret_cast<const char*>(tokens.data()), patches * dim * 4, dim * 4, keep.data(), batch, kept,
                       dim * 4, reinterpret_cast<char*>(visible.data()));
    write(out, visible);
    const auto mask_token = in.next<float>(), position = in.next<float>();
    cpu::restore_tokens(visible.data(), 0, restore.data(), mask_token.data(), position.data(), batch, patches, kept, dim,
                        decoded.data());
    write(out, decoded);

    auto target = in.next<float>();
    const auto source = in.next<float>();
    const sslfast::EmaPair pair{target.data(), source.data(), int64_t(target.size()), 0};
    cpu::ema_update(&pair, 1, 0.99, 0);
    write(out, target);

    const auto p = in.next<float>(), z = in.next<float>();
    const int64_t rows = p.size() / dim;
    std::vector<float> losses(rows), ones(rows, 1.0f), dp(p.size()), dz(z.size());
    cpu::negative_cosine_similarity(p.data(), z.data(), 0, rows, dim, losses.data());
    cpu::negative_cosine_similarity_backward(ones.data(), p.data(), z.data(), 0, rows, dim, dp.data(), dz.data());
    write(out, losses), write(out, dp), write(out, dz);

    const int64_t channels = sizes[4], height = sizes[5], width = sizes[6], size = sizes[7];
    const auto pixels = in.next<float>(), pred = in.next<float>();
    const std::vector<float> scale(channels * size, 1.0f), offset(channels * size, 0.0f);
    const cpu::Images images{pixels.data(), 0, channels * height * width, height * width, width, 1,
                             batch, channels, height, width, size, scale, offset};
    std::vector<float> mean(batch * patches), rstd(batch * patches), loss(1), masked(1), dpred(pred.size());
    const cpu::Prediction prediction{pred.data(), 0, mask.data()};
    cpu::masked_patch_loss(prediction, images, mean.data(), rstd.data(), loss.data(), masked.data());
    const float factor = 2 / (masked[0] * float(images.elements()));
    cpu::masked_patch_loss_backward(prediction, images, mean.data(), rstd.data(), factor, dpred.data());
    write(out, loss), write(out, dpred);

    auto first = in.next<float>(), second = in.next<float>(), queue = in.next<float>();
    const auto temperatures = in.next<double>();
    const int64_t wide = sizes[8], n = int64_t(first.size()) / wide;
    const auto matrix = [wide](std::vector<float>& x) { return cpu::Rows{x.data(), 0, wide}; };
    const std::vector<float> grad(2 * n, 1.0f);
    std::vector<float> each(2 * n), shift(2 * n), inverse_sum(2 * n), lengths(2 * n), unit(2 * n * wide), d(2 * n * wide);
    std::vector<float> average(n * wide), dquery(n * wide), dkey(n * wide);
    std::vector<float> room(4 * cpu::kTile * cpu::kTile);
    for (const double tau : temperatures) {
        const cpu::Kept known{room.data(), 4};
        for (const bool across : {false, true}) {
            cpu::nt_xent_forward(matrix(first), matrix(second), n, across, tau, each.data(), shift.data(),
                                 inverse_sum.data(), matrix(unit), lengths.data(), nullptr, known);
            cpu::nt_xent_backward(grad.data(), matrix(unit), lengths.data(), each.data(), shift.data(),
                                  inverse_sum.data(), known, n, across, tau, matrix(d));
            write(out, each), write(out, d);
        }
        const cpu::Rows negatives = matrix(queue), weighted = matrix(average), to_key = matrix(dkey);
        for (const cpu::Rows* others : {static_cast<const cpu::Rows*>(nullptr), &negatives}) {
            const cpu::Choice choice{n, n, nullptr, nullptr};
            cpu::info_nce_forward(matrix(first), matrix(second), choice, true, others, int64_t(queue.size()) / wide, tau,
                                  each.data(), shift.data(), inverse_sum.data(), &weighted, matrix(unit),
                                  lengths.data(), nullptr, {nullptr, 0});
            cpu::info_nce_backward(grad.data(), matrix(unit), lengths.data(), each.data(), shift.data(),
                                   inverse_sum.data(), weighted, {nullptr, 0}, choice, true, tau, !others,
                                   matrix(dquery), &to_key);
            write(out, std::vector<float>(each.begin(), each.begin() + n)), write(out, dquery), write(out, dkey);
        }
    }
    return out.good() ? 0 : 1;
}
