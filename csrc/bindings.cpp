// What Python sees of the CPU kernels: raw addresses, sizes and numbers, no tensors.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <vector>

#include "cpu/augment.h"
#include "cpu/contrastive.h"
#include "cpu/ema.h"
#include "cpu/gather_patches.h"
#include "cpu/gather_tokens.h"
#include "cpu/instruction_sets.h"
#include "cpu/masked_patch_loss.h"
#include "cpu/memory.h"
#include "cpu/negative_cosine_similarity.h"
#include "cpu/nt_xent.h"
#include "cpu/peak.h"
#include "cpu/random_patch_mask.h"
#include "cpu/restore_tokens.h"

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

    m.def("normalize_rows", [](address z, int64_t rows, int64_t dim, address u, address scale) {
        cpu::normalize_rows(at<float>(z), rows, dim, at<float>(u), at<float>(scale));
    }, nogil);
    m.def("softmax_tile", [](address cosine, int64_t rows, int64_t cols, int64_t i0, int64_t j0, bool skip_diagonal,
                             double inverse_tau, bool fixed, address maximum, address sum, address rescale) {
        cpu::softmax_tile(at<float>(cosine), rows, cols, i0, j0, {skip_diagonal, 0}, inverse_tau, fixed,
                          at<float>(maximum), at<double>(sum), at<float>(rescale));
    }, nogil);
    m.def("weights_tile", [](address cosine, int64_t rows, int64_t cols, int64_t i0, int64_t j0, bool skip_diagonal,
                             int64_t pairs, double inverse_tau, bool fixed, address row_factor, address row_shift,
                             address column_factor, address column_shift) {
        cpu::weights_tile(at<float>(cosine), rows, cols, i0, j0, {skip_diagonal, pairs}, inverse_tau, fixed,
                          at<float>(row_factor), at<float>(row_shift), at<float>(column_factor),
                          at<float>(column_shift));
    }, nogil);
    m.def("contrastive_losses", [](int64_t rows, double inverse_tau, address positive, address maximum, address sum,
                                   address loss, address inverse_sum) {
        cpu::contrastive_losses(rows, inverse_tau, at<float>(positive), at<float>(maximum), at<double>(sum),
                                at<float>(loss), at<float>(inverse_sum));
    }, nogil);
    m.def("project_rows", [](address du, address u, address positive, address scale, address weight, int64_t rows,
                             int64_t dim, double inverse_tau) {
        return cpu::project_rows(at<float>(du), at<float>(u), at<float>(positive), at<float>(scale),
                                 at<float>(weight), rows, dim, inverse_tau);
    }, nogil);

    m.def("nt_xent_workspace", &cpu::nt_xent_workspace);
    m.def("nt_xent_forward_tile", [](address cosine, int64_t rows, int64_t cols, int64_t i0, int64_t j0,
                                     int64_t pairs, double inverse_tau, bool fixed, address positive, address maximum,
                                     address sum, address workspace) {
        cpu::nt_xent_forward_tile(at<float>(cosine), rows, cols, i0, j0, pairs, inverse_tau, fixed,
                                  at<float>(positive), at<float>(maximum), at<double>(sum), at<float>(workspace));
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
    m.def("augment", [](address images, int64_t batch, int64_t channels, int64_t height, int64_t width,
                        address sizes, const std::array<address, 7>& rows, int64_t view_rows, int64_t view_columns,
                        const std::array<bool, 4>& jitters, bool bicubic, bool simclr, int64_t blur_radius,
                        const std::vector<float>& scale, const std::vector<float>& offset, int64_t type,
                        address views) {
        const cpu::ViewRows params{at<int32_t>(sizes),   at<int32_t>(rows[0]), at<bool>(rows[1]),  at<float>(rows[2]),
                                   at<int32_t>(rows[3]), at<bool>(rows[4]),    at<float>(rows[5]), at<float>(rows[6])};
        const cpu::ViewBatch all{batch, channels, height, width, view_rows, view_columns,
                                 {jitters[0], jitters[1], jitters[2], jitters[3]}, bicubic, simclr,
                                 blur_radius, scale.data(), offset.data(), type};
        cpu::augment(at<uint8_t>(images), params, all, at<void>(views));
    }, nogil);

    py::class_<cpu::Memory>(m, "Memory", py::buffer_protocol(), py::module_local())
        .def(py::init<int64_t>())
        .def_static("release", &cpu::Memory::release)
        .def_buffer([](cpu::Memory& memory) {
            return py::buffer_info(static_cast<uint8_t*>(memory.data), memory.bytes);
        });

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
