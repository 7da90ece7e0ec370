// A batch of images to training views, every view by its own parameters, in one pass over its source.
#pragma once

#include <cstdint>

namespace sslfast::cpu {

// One row a view; what the fields mean is documented at sslfast.augment.ViewParams.
struct ViewRows {
    const int32_t* sizes;     // (batch, 2) heights and widths of the sources, or null
    const int32_t* crop;      // (batch, 4) top, left, height, width
    const bool* flip;         // (batch)
    const float* jitter;      // (batch, 4) brightness, contrast, saturation, hue
    const int32_t* order;     // (batch, 4)
    const bool* grayscale;    // (batch)
    const float* blur;        // (batch) sigma, 0 for none
    const float* solarize;    // (batch) threshold, infinity for none
};

// What holds for the whole batch.
struct ViewBatch {
    int64_t batch, channels, height, width;  // of the sources
    int64_t rows, columns;                   // of a view
    bool jitters[4];                         // whether brightness, contrast, saturation and hue may change anything
    bool bicubic;
    bool simclr;  // the steps of SimCLR's TensorFlow code instead of torchvision's
    int64_t blur_radius;
    const float *scale, *offset;  // (channels) the normalisation: view = scale * x + offset, x in [0, 1]
    int64_t source;               // type of the images: 0 uint8, 1 uint16, 2 float32
    int64_t type;                 // of the views: 0 float32, 1 bfloat16, 2 float16
};

// images (batch, channels, height, width) -> views (batch, channels, rows, columns).
void augment(const void* images, const ViewRows& params, const ViewBatch& all, void* views);

}  // namespace sslfast::cpu
