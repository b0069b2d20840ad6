// Convolutions against plain loops.
#include <cmath>

#include "check.h"
#include "ops/conv.h"
#include "ops/linear.h"
#include "ops/packing.h"
#include "random.h"

using namespace tallow;
using testing::Random;

namespace {

float at(const std::vector<float>& x, const Windows& w, std::int64_t image, std::int64_t y, std::int64_t column, std::int64_t c) {
    if (y < 0 || y >= w.height || column < 0 || column >= w.width) return 0;
    return x[image * w.image_stride + y * w.line_stride + column * w.pixel_stride + c];
}

// Fills in what follows from the sizes; `gap` floats lie behind each pixel's channels.
void lay_out(Windows& w, std::int64_t gap) {
    w.pixel_stride = w.channels + gap;
    w.line_stride = w.width * w.pixel_stride;
    w.image_stride = w.height * w.line_stride;
    w.out_height = (w.height + 2 * w.padding_y - w.dilation_y * (w.kernel_height - 1) - 1) / w.step_y + 1;
    w.out_width = (w.width + 2 * w.padding_x - w.dilation_x * (w.kernel_width - 1) - 1) / w.step_x + 1;
}

// What tap `tap` of a channel reads for the output of number `row`, images, lines and pixels counted through.
float tapped(const std::vector<float>& x, const Windows& w, std::int64_t row, std::int64_t tap, std::int64_t c) {
    const std::int64_t image = row / (w.out_height * w.out_width), line = row / w.out_width % w.out_height;
    const std::int64_t y = line * w.step_y - w.padding_y + tap / w.kernel_width * w.dilation_y;
    const std::int64_t column = row % w.out_width * w.step_x - w.padding_x + tap % w.kernel_width * w.dilation_x;
    return at(x, w, image, y, column, c);
}

void check_conv(Windows w, std::int64_t images, std::int64_t out, std::int64_t gap, Random& random) {
    lay_out(w, gap);
    const std::int64_t k = w.kernel_height * w.kernel_width * w.channels, rows = images * w.out_height * w.out_width;
    const std::vector<float> x = random.numbers(images * w.image_stride), weights = random.numbers(out * k);
    std::vector<float> y(rows * out);
    Matrix matrix(Storage::f32, out, k, k);
    PackArgs pack{};
    pack.from = Storage::f32;
    pack.source = weights.data();
    pack.row_stride = k;
    pack.column_stride = 1;
    matrix.pack(pack);
    LinearArgs args{};
    args.weight = &matrix.packed();
    args.x.data = x.data();
    args.x.windowed = true;
    args.x.windows = w;
    args.rows = rows;
    args.out = y.data();
    args.out_stride = out;
    linear(args);
    for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t o = 0; o < out; ++o) {
            double sum = 0, size = 0;
            for (std::int64_t i = 0; i < k; ++i) {
                const double one = double(tapped(x, w, row, i / w.channels, i % w.channels)) * weights[o * k + i];
                sum += one;
                size += std::fabs(one);
            }
            CHECK(testing::near(y[row * out + o], sum, size, k));
        }
}

void check_depthwise(Windows w, std::int64_t images, std::int64_t gap, bool biased, Random& random) {
    lay_out(w, gap);
    const std::int64_t taps = w.kernel_height * w.kernel_width, rows = images * w.out_height * w.out_width;
    const std::vector<float> x = random.numbers(images * w.image_stride), weights = random.numbers(taps * w.channels);
    const std::vector<float> bias = random.numbers(w.channels);
    std::vector<float> y(rows * w.channels);
    depthwise({y.data(), x.data(), weights.data(), biased ? bias.data() : nullptr, w}, images);
    for (std::int64_t row = 0; row < rows; ++row)
        for (std::int64_t c = 0; c < w.channels; ++c) {
            double sum = biased ? bias[c] : 0.0, size = std::fabs(sum);
            for (std::int64_t tap = 0; tap < taps; ++tap) {
                const double one = double(tapped(x, w, row, tap, c)) * weights[tap * w.channels + c];
                sum += one;
                size += std::fabs(one);
            }
            CHECK(testing::near(y[row * w.channels + c], sum, size, taps));
        }
}

Windows windows(std::int64_t height, std::int64_t width, std::int64_t channels, std::int64_t kh, std::int64_t kw) {
    Windows w{};
    w.height = height, w.width = width, w.channels = channels, w.kernel_height = kh, w.kernel_width = kw;
    w.step_y = w.step_x = w.dilation_y = w.dilation_x = 1;
    return w;
}

Windows some_windows(Random& random) {
    Windows w = windows(1 + random.below(9), 1 + random.below(40), 1 + random.below(20), 1 + random.below(3), 1 + random.below(4));
    w.step_y = 1 + random.below(3), w.step_x = 1 + random.below(3);
    w.dilation_y = 1 + random.below(2), w.dilation_x = 1 + random.below(2);
    w.padding_y = random.below(4) + (w.dilation_y * (w.kernel_height - 1)) / 2 + 1;
    w.padding_x = random.below(4) + (w.dilation_x * (w.kernel_width - 1)) / 2 + 1;
    return w;
}

}  // namespace

LEVEL_TEST(convolutions) {
    Random random(11);
    for (int i = 0; i < 60; ++i) check_conv(some_windows(random), 1 + random.below(2), 1 + random.below(40), random.below(2) * 3, random);
}

LEVEL_TEST(depthwise_convolutions) {
    Random random(14);
    for (int i = 0; i < 60; ++i) check_depthwise(some_windows(random), 1 + random.below(2), random.below(2) * 3, i % 2, random);
}

LEVEL_TEST(a_convolution_longer_than_a_stretch) {
    Random random(12);
    Windows w = windows(5, 6, 130, 3, 3);
    w.padding_y = w.padding_x = 1;
    check_conv(w, 2, 35, 0, random);
}

LEVEL_TEST(channels_are_turned_last) {
    Random random(13);
    const std::int64_t images = 2, channels = 7, height = 3, width = 37;
    const std::vector<float> x = random.numbers(images * channels * height * width);
    std::vector<float> out(x.size());
    channels_last({out.data(), x.data(), images, channels, height, width, channels * height * width, height * width, width, 1});
    for (std::int64_t i = 0; i < std::int64_t(x.size()); ++i) {
        const std::int64_t column = i % width, line = i / width % height, c = i / (width * height) % channels;
        const std::int64_t image = i / (width * height * channels);
        CHECK(out[((image * height + line) * width + column) * channels + c] == x[i]);
    }
}
