// What Python sees of the CPU kernels: raw addresses, sizes and numbers, no tensors. Compiled once, so that what differs
// between instruction sets must be asked of a function.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <vector>

#include "cpu/augment.h"
#include "cpu/buffer.h"
#include "cpu/ema.h"
#include "cpu/gather_patches.h"
#include "cpu/gather_tokens.h"
#include "cpu/info_nce.h"
#include "cpu/instruction_sets.h"
#include "cpu/masked_patch_loss.h"
#include "cpu/negative_cosine_similarity.h"
#include "cpu/negatives.h"
#include "cpu/nt_xent.h"
#include "cpu/peak.h"
#include "cpu/random_patch_mask.h"
#include "cpu/restore_tokens.h"
#include "cpu/siglip_loss.h"
#include "cpu/unit_rows.h"

namespace py = pybind11;
using address = std::uintptr_t;

namespace {

template <typename T>
T* at(address a) {
    return reinterpret_cast<T*>(a);
}

void bind(py::module_& m) {
    m.doc() = "CPU kernels of sslfast over raw addresses; called by sslfast.kernels only.";
#ifdef _OPENMP
    m.attr("has_openmp") = true;
#else
    m.attr("has_openmp") = false;
#endif
    const auto nogil = py::call_guard<py::gil_scoped_release>();
    namespace cpu = sslfast::cpu;

    m.def("instruction_sets", &cpu::instruction_sets);
    m.def("multiply_and_add", &cpu::multiply_and_add, nogil);
    m.def("release_buffers", &cpu::release_buffers, nogil);

    py::class_<cpu::Rows>(m, "Rows", py::module_local()).def(py::init([](address data, int type, int64_t dim) {
        return cpu::Rows{at<void>(data), type, dim};
    }));
    py::class_<cpu::Kept>(m, "Kept", py::module_local()).def(py::init([](address cosines, int64_t tiles) {
        return cpu::Kept{at<float>(cosines), tiles};
    }));
    m.attr("tile") = cpu::kTile;
    m.def("kept_from", &cpu::kept_from);
    m.def("nt_xent_forward", [](const cpu::Rows& z1, const cpu::Rows& z2, int64_t n, bool across, double tau,
                                address loss, address shift, address inverse_sum, const cpu::Rows& unit, address scale,
                                address rank, const cpu::Kept& kept) {
        cpu::nt_xent_forward(z1, z2, n, across, tau, at<float>(loss), at<float>(shift), at<float>(inverse_sum), unit,
                             at<float>(scale), at<int64_t>(rank), kept);
    }, nogil);
    m.def("nt_xent_backward", [](address grad, const cpu::Rows& unit, address scale, address loss, address shift,
                                 address inverse_sum, const cpu::Kept& kept, int64_t n, bool across, double tau,
                                 const cpu::Rows& dz) {
        return cpu::nt_xent_backward(at<float>(grad), unit, at<float>(scale), at<float>(loss), at<float>(shift),
                                     at<float>(inverse_sum), kept, n, across, tau, dz);
    }, nogil);
    py::class_<cpu::Choice>(m, "Choice", py::module_local())
        .def(py::init([](int64_t n, int64_t candidates, address targets, address ids) {
            return cpu::Choice{n, candidates, at<int64_t>(targets), at<int32_t>(ids)};
        }));
    m.def("info_nce_forward", [](const cpu::Rows& query, const cpu::Rows& key, const cpu::Choice& choice,
                                 bool normalized, const cpu::Rows* queue, int64_t queue_rows, double tau, address loss,
                                 address shift, address inverse_sum, const cpu::Rows* mean, const cpu::Rows& unit,
                                 address scale, address rank, const cpu::Kept& kept) {
        cpu::info_nce_forward(query, key, choice, normalized, queue, queue_rows, tau, at<float>(loss), at<float>(shift),
                              at<float>(inverse_sum), mean, unit, at<float>(scale), at<int64_t>(rank), kept);
    }, nogil);
    m.def("info_nce_backward", [](address grad, const cpu::Rows& unit, address scale, address loss, address shift,
                                  address inverse_sum, const cpu::Rows& mean, const cpu::Kept& kept,
                                  const cpu::Choice& choice, bool normalized, double tau, bool in_batch,
                                  const cpu::Rows& dquery, const cpu::Rows* dkey) {
        return cpu::info_nce_backward(at<float>(grad), unit, at<float>(scale), at<float>(loss), at<float>(shift),
                                      at<float>(inverse_sum), mean, kept, choice, normalized, tau, in_batch, dquery,
                                      dkey);
    }, nogil);
    m.def("negatives_forward", [](const cpu::Rows& rows, int64_t count, const cpu::Rows& columns, int64_t column_count,
                                  bool skip_diagonal, address row_ids, address column_ids, const cpu::Rows* positives,
                                  double tau, address shift, address sum, const cpu::Rows* weighted, address rank) {
        cpu::negatives_forward(rows, count, columns, column_count, skip_diagonal, at<int32_t>(row_ids),
                               at<int32_t>(column_ids), positives, tau, at<float>(shift), at<float>(sum), weighted,
                               at<int64_t>(rank));
    }, nogil);
    m.def("negatives_backward", [](const cpu::Rows& rows, int64_t count, const cpu::Rows& columns, int64_t column_count,
                                   bool skip_diagonal, address row_ids, address column_ids, address row_factor,
                                   address row_shift, address column_factor, address column_shift, double tau,
                                   const cpu::Rows& out) {
        cpu::negatives_backward(rows, count, columns, column_count, skip_diagonal, at<int32_t>(row_ids),
                                at<int32_t>(column_ids), at<float>(row_factor), at<float>(row_shift),
                                at<float>(column_factor), at<float>(column_shift), tau, out);
    }, nogil);
    m.def("negatives_among_forward", [](const cpu::Rows& rows, int64_t count, address ids, address labels, double tau,
                                        address shift, address sum, address positive, address rank,
                                        const cpu::Kept& kept) {
        cpu::negatives_among_forward(rows, count, at<int32_t>(ids), at<int32_t>(labels), tau, at<float>(shift),
                                     at<float>(sum), at<float>(positive), at<int64_t>(rank), kept);
    }, nogil);
    m.def("negatives_among_backward", [](const cpu::Rows& rows, int64_t count, address ids, address labels,
                                         address factor, address shift, address pull, const cpu::Kept& kept, double tau,
                                         const cpu::Rows& out) {
        cpu::negatives_among_backward(rows, count, at<int32_t>(ids), at<int32_t>(labels), at<float>(factor),
                                      at<float>(shift), at<float>(pull), kept, tau, out);
    }, nogil);
    m.def("normalize_rows", [](const cpu::Rows& z1, int64_t count1, const cpu::Rows& z2, int64_t count2,
                               const cpu::Rows& unit, address scale) {
        cpu::normalize_rows(z1, count1, z2, count2, unit, at<float>(scale));
    }, nogil);
    m.def("view_cosines", [](const cpu::Rows& unit, int64_t views, int64_t count, address cosines) {
        cpu::view_cosines(unit, views, count, at<float>(cosines));
    }, nogil);
    m.def("project_rows", [](const cpu::Rows& du, const cpu::Rows& unit, address scale, int64_t count,
                             double multiplier, int64_t views, address pulls, const cpu::Rows& out) {
        return cpu::project_rows(du, unit, at<float>(scale), count, multiplier, {views, at<float>(pulls)}, out);
    }, nogil);
    m.def("sigmoid_sums", [](const cpu::Rows& image, const cpu::Rows& text, int64_t n, bool own, double scale,
                             double bias, address factor, address loss, address weight, const cpu::Rows* dimage,
                             const cpu::Rows* dtext) {
        cpu::sigmoid_sums(image, text, n, own, scale, bias, at<float>(factor), at<float>(loss), at<float>(weight),
                          dimage, dtext);
    }, nogil);

    m.def("negative_cosine_similarity", [](address p, address z, int type, int64_t rows, int64_t dim, address loss) {
        cpu::negative_cosine_similarity(at<void>(p), at<void>(z), type, rows, dim, at<float>(loss));
    }, nogil);
    m.def("negative_cosine_similarity_backward", [](address grad, address p, address z, int type, int64_t rows,
                                                    int64_t dim, address dp, address dz) {
        cpu::negative_cosine_similarity_backward(at<float>(grad), at<void>(p), at<void>(z), type, rows, dim,
                                                 at<void>(dp), at<void>(dz));
    }, nogil);

    m.def("ema_update", [](address pairs, int64_t count, double momentum, uint64_t step) {
        cpu::ema_update(at<sslfast::EmaPair>(pairs), count, momentum, step);
    }, nogil);
    m.def("augment", [](address images, int64_t source, int64_t batch, int64_t channels, int64_t height, int64_t width,
                        address sizes, const std::array<address, 7>& rows, int64_t view_rows, int64_t view_columns,
                        const std::array<bool, 4>& jitters, bool bicubic, bool simclr, int64_t blur_radius,
                        const std::vector<float>& scale, const std::vector<float>& offset, int64_t type,
                        address views) {
        const cpu::ViewRows params{at<int32_t>(sizes),   at<int32_t>(rows[0]), at<bool>(rows[1]),  at<float>(rows[2]),
                                   at<int32_t>(rows[3]), at<bool>(rows[4]),    at<float>(rows[5]), at<float>(rows[6])};
        const cpu::ViewBatch all{batch, channels, height, width, view_rows, view_columns,
                                 {jitters[0], jitters[1], jitters[2], jitters[3]}, bicubic, simclr,
                                 blur_radius, scale.data(), offset.data(), source, type};
        cpu::augment(at<void>(images), params, all, at<void>(views));
    }, nogil);

    m.def("random_patch_mask_from_seed", [](int64_t seed, int64_t batch, int64_t patches, int64_t kept, address keep,
                                            address restore, address mask) {
        cpu::random_patch_mask_from_seed(uint64_t(seed), batch, patches, kept, at<int64_t>(keep),
                                         at<int64_t>(restore), at<uint8_t>(mask));
    }, nogil);
    m.def("random_patch_mask_from_noise", [](address noise, int64_t batch, int64_t patches, int64_t kept, address keep,
                                             address restore, address mask) {
        cpu::random_patch_mask_from_noise(at<float>(noise), batch, patches, kept, at<int64_t>(keep),
                                          at<int64_t>(restore), at<uint8_t>(mask));
    }, nogil);
    m.def("gather_tokens", [](address tokens, int64_t stride_b, int64_t stride_l, address keep, int64_t batch,
                              int64_t kept, int64_t bytes, address out) {
        cpu::gather_tokens(at<char>(tokens), stride_b, stride_l, at<int64_t>(keep), batch, kept, bytes, at<char>(out));
    }, nogil);
    m.def("spread_tokens", [](address grad, address keep, int64_t batch, int64_t kept, int64_t tokens, int64_t bytes,
                              address out) {
        return cpu::spread_tokens(at<char>(grad), at<int64_t>(keep), batch, kept, tokens, bytes, at<char>(out));
    }, nogil);
    m.def("restore_tokens", [](address visible, int type, address restore, address mask_token, address pos,
                               int64_t batch, int64_t tokens, int64_t kept, int64_t dim, address out) {
        cpu::restore_tokens(at<void>(visible), type, at<int64_t>(restore), at<float>(mask_token), at<float>(pos),
                            batch, tokens, kept, dim, at<void>(out));
    }, nogil);
    m.def("restore_tokens_backward", [](address grad, int type, address restore, int64_t batch, int64_t tokens,
                                        int64_t kept, int64_t dim, address dvisible, address dmask, address dpos) {
        return cpu::restore_tokens_backward(at<void>(grad), type, at<int64_t>(restore), batch, tokens, kept, dim,
                                     at<void>(dvisible), at<float>(dmask), at<float>(dpos));
    }, nogil);

    using numbers = std::vector<int64_t>;
    using floats = std::vector<float>;
    py::class_<cpu::Images>(m, "Images", py::module_local())
        .def(py::init([](address data, int type, const numbers& strides, const numbers& shape, int64_t patch_size,
                         floats scale, floats offset) {
            return cpu::Images{at<void>(data), type, strides.at(0), strides.at(1), strides.at(2), strides.at(3),
                               shape.at(0), shape.at(1), shape.at(2), shape.at(3), patch_size, scale, offset};
        }));
    m.def("gather_patches", [](const cpu::Images& images, address keep, int64_t kept, int type, address out) {
        cpu::gather_patches(images, at<int64_t>(keep), kept, type, at<void>(out));
    }, nogil);
    m.def("gather_patches_backward", [](address grad, const cpu::Images& images, address keep, int64_t kept, int type,
                                        address dimages) {
        return cpu::gather_patches_backward(at<float>(grad), images, at<int64_t>(keep), kept, type, at<void>(dimages));
    }, nogil);
    m.def("masked_patch_loss", [](address pred, int type, address mask, const cpu::Images& images, address mean,
                                  address rstd, address loss, address count) {
        cpu::masked_patch_loss({at<void>(pred), type, at<uint8_t>(mask)}, images, at<float>(mean), at<float>(rstd),
                               at<float>(loss), at<float>(count));
    }, nogil);
    m.def("masked_patch_loss_backward", [](address pred, int type, address mask, const cpu::Images& images,
                                           address mean, address rstd, float factor, address dpred) {
        cpu::masked_patch_loss_backward({at<void>(pred), type, at<uint8_t>(mask)}, images, at<float>(mean),
                                        at<float>(rstd), factor, at<void>(dpred));
    }, nogil);
}

}  // namespace

// Every module is linked with this one object; Python calls the function that has the name of the module.
PYBIND11_MODULE(baseline, m) { bind(m); }
PYBIND11_MODULE(avx2, m) { bind(m); }
PYBIND11_MODULE(avx512, m) { bind(m); }
PYBIND11_MODULE(avx512_bf16, m) { bind(m); }
