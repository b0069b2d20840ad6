#include "ops/conv.h"

#include <algorithm>

#include "core/kernels.h"
#include "core/thread_pool.h"

namespace tallow {

namespace {

using std::int64_t;

// Pixels taken at once: a cache line of each channel, so that both sides of the exchange stay in the first cache.
constexpr int64_t pixels_at_once = 16;

void turn(const ChannelsLastArgs& args, int64_t line, int64_t begin, int64_t end) {
    const float* from = args.x + line / args.height * args.image_stride + line % args.height * args.line_stride;
    float* to = args.out + line * args.width * args.channels;
    for (int64_t c = 0; c < args.channels; ++c)
        for (int64_t x = begin; x < end; ++x)
            to[x * args.channels + c] = from[c * args.channel_stride + x * args.pixel_stride];
}

}  // namespace

void channels_last(const ChannelsLastArgs& args) {
    const int64_t pieces = (args.width + pixels_at_once - 1) / pixels_at_once, work = pixels_at_once * args.channels;
    parallel_for(args.images * args.height * pieces, 8192 / (work + 1) + 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t first = i % pieces * pixels_at_once;
            turn(args, i / pieces, first, std::min(first + pixels_at_once, args.width));
        }
    });
}

void depthwise(const DepthwiseArgs& args, std::int64_t images) {
    const Windows& w = args.windows;
    const int64_t work = w.out_width * w.channels * w.kernel_height * w.kernel_width;  // of a line
    parallel_for(images * w.out_height, 65536 / (work + 1) + 1,
                 [&](int64_t begin, int64_t end) { kernels().depthwise(args, begin, end); });
}

}  // namespace tallow
