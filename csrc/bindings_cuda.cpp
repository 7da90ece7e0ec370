// What Python sees of the CUDA kernels: raw addresses on the device, sizes, numbers and a stream.
#include <pybind11/pybind11.h>

#include <cstdint>

#include "cuda/ema.h"
#include "cuda/random_patch_mask.h"

namespace py = pybind11;
using address = std::uintptr_t;

namespace {

template <typename T>
T* at(address a) {
    return reinterpret_cast<T*>(a);
}

}  // namespace

PYBIND11_MODULE(cuda, m) {
    m.doc() = "CUDA C++ kernels of sslfast over raw addresses; called by sslfast.kernels.cuda only.";
    const auto nogil = py::call_guard<py::gil_scoped_release>();
    namespace cuda = sslfast::cuda;

    m.attr("ema_chunk") = cuda::kEmaChunk;
    m.def("ema_update", [](address pairs, address chunks, int64_t chunk_count, double momentum, address momentum_at,
                           bool momentum_is_double, uint64_t step, address step_at, address stream) {
        cuda::ema_update(at<sslfast::EmaPair>(pairs), at<uint64_t>(chunks), chunk_count, momentum,
                         at<void>(momentum_at), momentum_is_double, step, at<uint64_t>(step_at), at<void>(stream));
    }, nogil);
    m.def("random_patch_mask_from_seed", [](address seed, int64_t batch, int64_t patches, int64_t kept, address keep,
                                            address restore, address mask, address stream) {
        cuda::random_patch_mask_from_seed(at<uint64_t>(seed), batch, patches, kept, at<int64_t>(keep),
                                          at<int64_t>(restore), at<bool>(mask), at<void>(stream));
    }, nogil);
    m.def("random_patch_mask_from_noise", [](address noise, int type, int64_t image_stride, int64_t patch_stride,
                                             int64_t batch, int64_t patches, int64_t kept, address keep,
                                             address restore, address mask, address stream) {
        cuda::random_patch_mask_from_noise(at<void>(noise), type, image_stride, patch_stride, batch, patches, kept,
                                           at<int64_t>(keep), at<int64_t>(restore), at<bool>(mask), at<void>(stream));
    }, nogil);
}
