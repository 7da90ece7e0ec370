// The sigmoid loss of images and texts: a square of cosines, tile by tile, never held, from which the losses and what both
// sides' gradients need come in one pass.
#pragma once

#include <cstdint>

#include "cpu/contrastive.h"

namespace sslfast::cpu {

// With z_ij = y_ij (scale * image_i·text_j + bias), y_ij = -1 for the own text (i = j) of an image if `own`, else 1:
// loss_i = sum over j of log(1 + exp(z_ij)), and with W_ij = factor_i y_ij sigmoid(z_ij) the sums weight_i of W_ij,
// dimage_i of W_ij text_j, dtext_j of W_ij image_i. What is null is not wanted; factor: all 1.
void sigmoid_sums(const Rows& image, const Rows& text, int64_t n, bool own, double scale, double bias,
                  const float* factor, float* loss, float* weight, const Rows* dimage, const Rows* dtext);

}  // namespace sslfast::cpu
