#pragma once

#include "kernels/depthwise.h"

namespace tallow {

// Copies images (b, c, h, w) of any strides, in floats, to memory with channels last: (b, h, w, c) without gaps.
struct ChannelsLastArgs {
    float* out;
    const float* x;
    std::int64_t images, channels, height, width;
    std::int64_t image_stride, channel_stride, line_stride, pixel_stride;
};

void channels_last(const ChannelsLastArgs& args);
void depthwise(const DepthwiseArgs& args, std::int64_t images);

}  // namespace tallow
