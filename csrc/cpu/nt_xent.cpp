#include "cpu/nt_xent.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/tasks.h"
#include "cpu/triangle.h"

namespace sslfast::cpu {

void nt_xent_forward(const Rows& z1, const Rows& z2, int64_t n, bool across, double temperature, float* loss,
                     float* shift, float* inverse_sum, const Rows& unit, float* scale, int64_t* rank,
                     const Kept& kept) {
    const Temperature tau(temperature);
    const Triangle views(unit, 2 * n, across, true, read_normalized(z1, n, z2, unit, scale), {});
    const TriangleSums sums(views, tau, rank, kept);
    const int64_t depth = views.depth();
    for_each_piece(n, kPanel, 16 * n * depth, 2 * depth, [&](int64_t begin, int64_t end, float* row) {
        for (int64_t i = begin; i < end; ++i) {
            views.operand().get(i, row);
            views.operand().get(views.place(i + n), row + depth);
            const float positive = float(dot(row, row + depth, depth));
            for (const int64_t at : {i, i + n}) {
                const RowLoss result(sums.total(at), positive, tau);
                loss[at] = result.loss, shift[at] = result.shift, inverse_sum[at] = result.inverse_sum;
                if (rank) rank[at] = sums.closer(at);
            }
        }
    });
}

double nt_xent_backward(const float* grad, const Rows& unit, const float* scale, const float* loss, const float* shift,
                        const float* inverse_sum, const Kept& kept, int64_t n, bool across, double temperature,
                        const Rows& dz) {
    const Temperature tau(temperature);
    const Triangle views(unit, 2 * n, across, true, read_rows(unit), kept);
    const int64_t rows = views.rows(), depth = views.depth();
    const Operand& u = views.operand();
    const Buffer gradient(rows * depth);
    const Strips du{depth, gradient.get()};
    weighted_triangle(views, {grad, inverse_sum, shift, nullptr}, tau, kept, du);

    std::vector<double> radial(2 * n);
    for_each_piece(n, kPanel, 32 * n * depth, 4 * depth, [&](int64_t begin, int64_t end, float* scratch) {
        float* const own[] = {scratch, scratch + depth};
        float* const gradients[] = {scratch + 2 * depth, scratch + 3 * depth};
        for (int64_t i = begin; i < end; ++i) {
            // P - 1 of the positives, without cancellation
            const float pull = grad[i] * std::expm1(-loss[i]) + grad[i + n] * std::expm1(-loss[i + n]);
            for (int64_t view : {0, 1}) u.get(views.place(i + view * n), own[view]);
            for (int64_t view : {0, 1}) {
                const int64_t row = i + view * n;
                du.get(views.place(i + view * n), gradients[view]);
                radial[row] = project_row(gradients[view], own[view], own[1 - view], pull, scale[row], tau.inverse, depth);
                dz.write(row, gradients[view]);
            }
        }
    });
    double total = 0;
    for (const double r : radial) total += r;
    return -total * tau.inverse * tau.inverse / 2;
}

}  // namespace sslfast::cpu
