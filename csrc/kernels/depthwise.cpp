// Every output is one chain of sums over the taps that lie inside the image, line by line, whatever is computed beside it.
#include "kernels/depthwise.h"

#include "kernels/simd.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

constexpr int pixels_at_once = 8;

struct Taps {
    int64_t begin, end;
};

// The taps that lie inside an axis for an output at a place.
TALLOW_INLINE Taps inside(int64_t at, int64_t step, int64_t padding, int64_t dilation, int64_t kernel, int64_t size) {
    const int64_t first = at * step - padding;
    const int64_t begin = first < 0 ? (-first + dilation - 1) / dilation : 0;
    const int64_t end = first < size ? (size - 1 - first) / dilation + 1 : 0;
    return {begin, smaller(end, kernel)};
}

// P outputs side by side, which share their taps, of one vector of channels; `n` of them count if they are not `whole`.
template <int P, bool whole>
TALLOW_INLINE void outputs(const DepthwiseArgs& args, const float* line, float* out, int64_t x, Taps down, Taps right,
                           int64_t channel, int64_t n) {
    const Windows& w = args.windows;
    auto read = [n](const float* p) { return whole ? load(p) : load_partial(p, n); };
    const float* from = line + (x * w.step_x - w.padding_x) * w.pixel_stride + channel;
    F32 acc[P];
    for (int p = 0; p < P; ++p) acc[p] = set(0.0f);
    for (int64_t i = down.begin; i < down.end; ++i)
        for (int64_t j = right.begin; j < right.end; ++j) {
            const F32 weight = read(args.weight + (i * w.kernel_width + j) * w.channels + channel);
            const float* tap = from + i * w.dilation_y * w.line_stride + j * w.dilation_x * w.pixel_stride;
            for (int p = 0; p < P; ++p) acc[p] = fma(read(tap + p * w.step_x * w.pixel_stride), weight, acc[p]);
        }
    const F32 bias = args.bias ? read(args.bias + channel) : set(0.0f);
    for (int p = 0; p < P; ++p) {
        float* to = out + (x + p) * w.channels + channel;
        if (whole)
            store(to, acc[p] + bias);
        else
            store_partial(to, acc[p] + bias, n);
    }
}

template <bool whole>
TALLOW_INLINE void output_line(const DepthwiseArgs& args, const float* line, float* out, Taps down, int64_t channel,
                               int64_t n) {
    const Windows& w = args.windows;
    auto taps = [&](int64_t x) { return inside(x, w.step_x, w.padding_x, w.dilation_x, w.kernel_width, w.width); };
    auto all = [&](int64_t x) { const Taps t = taps(x); return t.begin == 0 && t.end == w.kernel_width; };
    for (int64_t x = 0; x < w.out_width;) {
        if (x + pixels_at_once <= w.out_width && all(x) && all(x + pixels_at_once - 1)) {
            outputs<pixels_at_once, whole>(args, line, out, x, down, {0, w.kernel_width}, channel, n);
            x += pixels_at_once;
        } else {
            outputs<1, whole>(args, line, out, x, down, taps(x), channel, n);
            ++x;
        }
    }
}

// Lines [begin, end) of all images' outputs.
void depthwise(const DepthwiseArgs& args, int64_t begin, int64_t end) {
    const Windows& w = args.windows;
    for (int64_t i = begin; i < end; ++i) {
        const int64_t image = i / w.out_height, y = i % w.out_height;
        const Taps down = inside(y, w.step_y, w.padding_y, w.dilation_y, w.kernel_height, w.height);
        const float* line = args.x + image * w.image_stride + (y * w.step_y - w.padding_y) * w.line_stride;
        float* out = args.out + i * w.out_width * w.channels;
        for (int64_t channel = 0; channel < w.channels; channel += width) {
            const int64_t n = w.channels - channel;
            if (n >= width)
                output_line<true>(args, line, out, down, channel, width);
            else
                output_line<false>(args, line, out, down, channel, n);
        }
    }
}

}  // namespace

void add_depthwise_kernels(Kernels& table) { table.depthwise = depthwise; }

}  // namespace tallow::TALLOW_LEVEL
