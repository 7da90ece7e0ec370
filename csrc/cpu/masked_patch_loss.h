// Mean squared error of the masked patches against targets that are taken from the images on the way.
#pragma once

#include "cpu/patches.h"

namespace sslfast::cpu {

// A prediction (batch, patches, elements) of `type`, the images, and which patches count (batch, patches).
struct Prediction {
    const void* data;
    int type;
    const uint8_t* mask;
};

// The loss; mean and rstd (batch, patches) of the masked targets, zero elsewhere, or null without their normalisation;
// the number of masked patches.
void masked_patch_loss(const Prediction& pred, const Images& images, float* mean, float* rstd, float* loss,
                       float* count);

// factor * (pred - target) where masked, else zero, in the type of pred.
void masked_patch_loss_backward(const Prediction& pred, const Images& images, const float* mean, const float* rstd,
                                float factor, void* dpred);

}  // namespace sslfast::cpu
