// Convolutions that don't mix channels: each has a kernel of its own.
#pragma once

#include "kernels/matrix.h"

namespace tallow {

struct DepthwiseArgs {
    float* out;           // (images, out_height, out_width, channels) in C order
    const float* x;       // (images, height, width, channels), channels side by side, strides in `windows`
    const float* weight;  // (kernel_height · kernel_width, channels)
    const float* bias;    // (channels), or nullptr
    Windows windows;
};

}  // namespace tallow
