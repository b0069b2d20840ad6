// Activations, softmax and the largest element against plain loops in double precision.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "core/thread_pool.h"
#include "ops/rowwise.h"
#include "random.h"

using namespace tallow;
using testing::Random;

LEVEL_TEST(gated_activation) {
    Random random(11);
    for (std::int64_t width : {1, 3, 4, 15, 16, 17, 100, 40000}) {
        const std::int64_t rows = 3, stride = width + 5;
        const std::vector<float> x = random.numbers(rows * stride), up = random.numbers(rows * stride);
        std::vector<float> out(rows * width);
        activate({out.data(), x.data(), up.data(), rows, width, width, stride, stride, Activation::silu});
        for (std::int64_t i = 0; i < rows; ++i)
            for (std::int64_t j = 0; j < width; ++j) {
                const double a = x[i * stride + j], wanted = a / (1 + std::exp(-a)) * up[i * stride + j];
                CHECK(std::fabs(out[i * width + j] - wanted) <= 1e-6 + 1e-6 * std::fabs(wanted));
            }
    }
}

LEVEL_TEST(softmax_rows) {
    Random random(12);
    for (std::int64_t width : {1, 2, 5, 16, 31, 333}) {
        const std::int64_t rows = 5, stride = width + 3;
        const std::vector<float> x = random.numbers(rows * stride);
        std::vector<float> out(rows * width), logs(rows * width);
        softmax({out.data(), x.data(), rows, width, width, stride, false});
        softmax({logs.data(), x.data(), rows, width, width, stride, true});
        for (std::int64_t i = 0; i < rows; ++i) {
            double total = 0;
            for (std::int64_t j = 0; j < width; ++j) total += std::exp(double(x[i * stride + j]));
            for (std::int64_t j = 0; j < width; ++j) {
                const double wanted = std::exp(double(x[i * stride + j])) / total;
                CHECK(std::fabs(out[i * width + j] - wanted) <= 2e-6 * wanted);
                CHECK(std::fabs(logs[i * width + j] - std::log(wanted)) <= 2e-6 + 2e-6 * std::fabs(std::log(wanted)));
            }
        }
    }
}

LEVEL_TEST(argmax_of_rows) {
    Random random(13);
    const float huge = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    for (std::int64_t width : {1, 2, 15, 16, 255, 256, 257, 1000, 50001}) {
        const std::int64_t rows = 6, stride = width + 3;
        std::vector<float> x = random.numbers(rows * stride);
        for (float& value : x) value = std::round(value * 4);  // many equals
        x[1 * stride + width / 2] = huge;
        std::fill_n(x.begin() + 2 * stride, width, -huge);
        x[3 * stride + width - 1] = nan, x[3 * stride + width / 3] = nan, x[3 * stride] = huge;
        std::fill_n(x.begin() + 4 * stride, width, -7.0f);
        std::vector<std::int64_t> out(rows, -1);
        argmax({out.data(), x.data(), rows, width, stride});
        for (std::int64_t i = 0; i < rows; ++i) {
            const float* row = x.data() + i * stride;
            std::int64_t wanted = 0;
            for (std::int64_t j = 1; j < width && row[wanted] == row[wanted]; ++j)
                if (row[j] > row[wanted] || row[j] != row[j]) wanted = j;
            CHECK(out[i] == wanted);
        }
    }
}
