// Activations, softmax and the largest element against plain loops in double precision.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

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

// By the definition, in double precision: NaN and the first places where a row has no probabilities.
static void check_logprobs(const float* row, std::int64_t width, std::int64_t top, const std::int64_t* ids,
                           const float* values) {
    const double highest = *std::max_element(row, row + width);
    double sum = 0;
    for (std::int64_t i = 0; i < width; ++i) sum += std::exp(row[i] - highest);
    const bool numbers = sum > 0 && std::isfinite(sum);
    std::vector<std::int64_t> order(width);
    std::iota(order.begin(), order.end(), 0);
    if (numbers) std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return row[a] > row[b]; });
    for (std::int64_t i = 0; i <= top; ++i) {
        const std::int64_t at = ids[i];
        if (i) CHECK(at == order[i - 1]);
        if (!numbers || at < 0 || at >= width) {
            CHECK(std::isnan(values[i]));
        } else if (row[at] == -std::numeric_limits<float>::infinity()) {
            CHECK(values[i] == row[at]);
        } else {
            const double wanted = row[at] - highest - std::log(sum);
            CHECK(std::fabs(values[i] - wanted) <= 4e-6 + 2e-7 * std::fabs(wanted));
        }
    }
}

LEVEL_TEST(log_probabilities_of_the_largest) {
    Random random(14);
    const float huge = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    for (std::int64_t width : {1, 2, 15, 16, 17, 1000, 16384, 16385, 50001}) {
        const std::int64_t rows = 7, stride = width + 3;
        std::vector<float> x = random.numbers(rows * stride);
        for (float& value : x) value = std::round(value * 8);  // many equals
        x[1 * stride + width / 2] = huge;
        std::fill_n(x.begin() + 2 * stride, width, -huge);
        x[3 * stride + width - 1] = nan;
        std::fill_n(x.begin() + 4 * stride, width, -7.0f);
        std::fill_n(x.begin() + 5 * stride, (width + 1) / 2, -huge), x[5 * stride + width - 1] = 1e4f;
        const std::vector<std::int64_t> given{0, width / 2, 0, width - 1, width, -1, width - 1};
        for (std::int64_t most : {0, 1, 5, 20, 100000}) {
            const std::int64_t top = std::min(most, width);
            std::vector<std::int64_t> ids(rows * (top + 1), -2);
            std::vector<float> values(rows * (top + 1));
            top_logprobs({ids.data(), values.data(), x.data(), given.data(), rows, width, top, stride});
            for (std::int64_t i = 0; i < rows; ++i) {
                CHECK(ids[i * (top + 1)] == given[i]);
                check_logprobs(x.data() + i * stride, width, top, ids.data() + i * (top + 1), values.data() + i * (top + 1));
            }
        }
    }
}
