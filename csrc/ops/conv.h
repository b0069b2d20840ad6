#pragma once

#include "kernels/matrix.h"

namespace tallow {

// Copies images (b, c, h, w) of any strides, in floats, to memory with channels last: (b, h, w, c) without gaps.
struct ChannelsLastArgs {
    float* out;
    const float* x;
    std::int64_t images, channels, height, width;
    std::int64_t image_stride, channel_stride, line_stride, pixel_stride;
};

void channels_last(const ChannelsLastArgs& args);

}  // namespace tallow
