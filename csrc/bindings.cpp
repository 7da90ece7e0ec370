// What Python sees of the C++ core: raw addresses, sizes and numbers, no tensors.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <vector>

#include "cpu/augment.h"
#include "cpu/contrastive.h"
#include "cpu/ema.h"
#include "cpu/negative_cosine_similarity.h"
#include "cpu/nt_xent.h"
#include "cpu/pages.h"
#ifdef SSLFAST_HAS_CUDA
#include "cuda/ema.h"
#endif

namespace py = pybind11;
using address = std::uintptr_t;

namespace {

template <typename T>
T* at(address a) {
    return reinterpret_cast<T*>(a);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
    m.doc() = "C++ core of sslfast: kernels over raw addresses; called by sslfast.kernels only.";
#ifdef SSLFAST_HAS_CUDA
    m.attr("has_cuda") = true;
#else
    m.attr("has_cuda") = false;
#endif
    const auto nogil = py::call_guard<py::gil_scoped_release>();
    namespace cpu = sslfast::cpu;

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
    m.def("prefer_huge_pages", [](address array, int64_t bytes) { cpu::prefer_huge_pages(at<void>(array), bytes); });

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
#ifdef SSLFAST_HAS_CUDA
    namespace cuda = sslfast::cuda;

    m.attr("ema_chunk") = cuda::kEmaChunk;
    m.def("ema_update_cuda", [](address pairs, address chunks, int64_t chunk_count, double momentum,
                                address momentum_at, bool momentum_is_double, uint64_t step, address step_at,
                                address stream) {
        cuda::ema_update(at<sslfast::EmaPair>(pairs), at<uint64_t>(chunks), chunk_count, momentum,
                         at<void>(momentum_at), momentum_is_double, step, at<uint64_t>(step_at), at<void>(stream));
    }, nogil);
#endif
}
