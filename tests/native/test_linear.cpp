// Products with packed weights, against plain loops in double precision and exact integers.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>
#include <thread>

#include "check.h"
#include "core/thread_pool.h"
#include "ops/linear.h"
#include "ops/packing.h"
#include "random.h"

using namespace tallow;
using testing::Random;

namespace {

struct Case {
    std::int64_t m, n, k;
};

const Case cases[] = {{1, 1, 1},     {1, 70, 33},   {1, 200, 300}, {2, 17, 5},   {3, 65, 257},
                      {5, 31, 64},   {13, 33, 520}, {14, 40, 16},  {15, 64, 96}, {31, 100, 800},
                      {33, 48, 128}, {70, 90, 70},  {4, 5, 0}};


void fill(Matrix& matrix, const std::vector<float>& w) {
    PackArgs args{};
    args.from = Storage::f32;
    args.source = w.data();
    args.row_stride = matrix.packed().k;
    args.column_stride = 1;
    matrix.pack(args);
}

std::vector<float> widened(const Matrix& matrix) {
    std::vector<float> out(matrix.packed().n * matrix.packed().k);
    matrix.rows(nullptr, matrix.packed().n, out.data());
    return out;
}

std::vector<float> product(const Matrix& matrix, const std::vector<float>& x, std::int64_t m, LinearArgs args = {}) {
    const std::int64_t n = matrix.packed().n;
    std::vector<float> out(m * n);
    args.weight = &matrix.packed();
    args.x.data = x.data();
    args.x.stride = matrix.packed().k;
    args.rows = m;
    args.out = out.data();
    args.out_stride = n;
    linear(args);
    return out;
}

bool same_bits(const float* a, const float* b, std::int64_t n) { return std::memcmp(a, b, n * sizeof(float)) == 0; }

}  // namespace

LEVEL_TEST(float_products) {
    Random random(1);
    for (const Case& c : cases) {
        const std::vector<float> w = random.numbers(c.n * c.k), x = random.numbers(c.m * c.k);
        for (Storage storage : {Storage::f32, Storage::f16, Storage::bf16}) {
            Matrix matrix(storage, c.n, c.k, c.k);
            fill(matrix, w);
            const std::vector<float> stored = widened(matrix), out = product(matrix, x, c.m);
            const double tolerance = storage == Storage::f32 ? 0 : storage == Storage::f16 ? 1e-3 : 8e-3;
            for (std::int64_t i = 0; i < c.n * c.k; ++i) CHECK(std::fabs(stored[i] - w[i]) <= tolerance);
            for (std::int64_t i = 0; i < c.m; ++i)
                for (std::int64_t j = 0; j < c.n; ++j) {
                    double sum = 0, size = 0;
                    for (std::int64_t k = 0; k < c.k; ++k) {
                        const double one = double(x[i * c.k + k]) * stored[j * c.k + k];
                        sum += one;
                        size += std::fabs(one);
                    }
                    CHECK(testing::near(out[i * c.n + j], sum, size, c.k));
                }
        }
    }
}

LEVEL_TEST(rows_do_not_depend_on_their_neighbours) {
    Random random(2);
    const std::int64_t m = 61, n = 75, k = 576;
    const std::vector<float> w = random.numbers(n * k), x = random.numbers(m * k), bias = random.numbers(n);
    for (Storage storage : {Storage::f32, Storage::f16, Storage::bf16, Storage::i8, Storage::i8_groups}) {
        Matrix matrix(storage, n, k, storage == Storage::i8_groups ? 32 : k);
        fill(matrix, w);
        LinearArgs args{};
        args.bias = bias.data();
        args.activation = Activation::gelu;
        ThreadPool::instance().set_threads(1);
        const std::vector<float> whole = product(matrix, x, m, args);
        for (int threads : {1, 3}) {
            ThreadPool::instance().set_threads(threads);
            CHECK(same_bits(product(matrix, x, m, args).data(), whole.data(), m * n));
            for (std::int64_t size : {1, 2, 3, 7, 16, 40})
                for (std::int64_t row = 0; row < m; row += size) {
                    const std::int64_t count = std::min(size, m - row);
                    const std::vector<float> part(x.begin() + row * k, x.begin() + (row + count) * k);
                    CHECK(same_bits(product(matrix, part, count, args).data(), whole.data() + row * n, count * n));
                }
        }
    }
    ThreadPool::instance().set_threads(2);
}

LEVEL_TEST(extreme_bytes) {
    Random random(3);
    for (const Case& c : cases) {
        if (!c.k) continue;
        std::vector<std::int8_t> w(c.n * c.k);
        std::vector<float> x(c.m * c.k), scales(c.n, 1.0f);
        for (std::int8_t& value : w) value = random.below(2) ? 127 : -127;
        for (float& value : x) value = random.below(2) ? 127.0f : -127.0f;
        for (std::int64_t k = 0; k < c.k; ++k) w[k] = 127, x[k] = 127;
        Matrix matrix(Storage::i8, c.n, c.k, c.k);
        PackArgs args{};
        args.from = Storage::i8;
        args.source = w.data();
        args.row_stride = c.k;
        args.column_stride = 1;
        args.scales = scales.data();
        matrix.pack(args);
        const std::vector<float> out = product(matrix, x, c.m);
        for (std::int64_t i = 0; i < c.m; ++i)
            for (std::int64_t j = 0; j < c.n; ++j) {
                std::int32_t sum = 0;
                for (std::int64_t k = 0; k < c.k; ++k) sum += std::int32_t(x[i * c.k + k]) * w[j * c.k + k];
                CHECK(out[i * c.n + j] == static_cast<float>(sum));
            }
    }
}

LEVEL_TEST(int8_products) {
    Random random(4);
    for (const Case& c : cases) {
        for (std::int64_t group : {c.k, std::int64_t(32)}) {
            if (c.k == 0 || c.k % group) continue;
            const std::vector<float> w = random.numbers(c.n * c.k), x = random.numbers(c.m * c.k);
            Matrix matrix(group == c.k ? Storage::i8 : Storage::i8_groups, c.n, c.k, group);
            fill(matrix, w);
            CHECK(matrix.scales_finite());
            const std::vector<float> stored = widened(matrix), out = product(matrix, x, c.m);
            for (std::int64_t i = 0; i < c.n * c.k; ++i) CHECK(std::fabs(stored[i] - w[i]) <= 0.5f / 127 + 1e-6f);
            for (std::int64_t i = 0; i < c.m; ++i)
                for (std::int64_t j = 0; j < c.n; ++j) {
                    double sum = 0, size = 0;  // each activation is off by at most half a 127th
                    for (std::int64_t k = 0; k < c.k; ++k) {
                        sum += double(x[i * c.k + k]) * stored[j * c.k + k];
                        size += std::fabs(stored[j * c.k + k]);
                    }
                    CHECK(std::fabs(out[i * c.n + j] - sum) <= size * 0.5 / 127 + 1e-5);
                }
        }
    }
}

LEVEL_TEST(numbers_that_are_not) {
    Random random(5);
    const std::int64_t m = 9, n = 40, k = 70;
    const std::vector<float> w = random.numbers(n * k);
    std::vector<float> x = random.numbers(m * k);
    x[2 * k + 3] = std::numeric_limits<float>::quiet_NaN();
    x[5 * k + 69] = std::numeric_limits<float>::infinity();
    for (Storage storage : {Storage::f32, Storage::f16, Storage::bf16, Storage::i8}) {
        Matrix matrix(storage, n, k, k);
        fill(matrix, w);
        const std::vector<float> out = product(matrix, x, m);
        for (std::int64_t i = 0; i < m * n; ++i) CHECK(std::isfinite(out[i]) == (i / n != 2 && i / n != 5));
    }
}

LEVEL_TEST(activations) {
    Random random(6);
    const std::int64_t m = 300, n = 33, k = 1;
    std::vector<float> w(n, 1.0f), x = random.numbers(m);
    for (float& value : x) value *= 12;
    x[0] = 0, x[1] = 1e30f, x[2] = -1e30f, x[3] = std::numeric_limits<float>::infinity(), x[4] = -0.0f;
    Matrix matrix(Storage::f32, n, k, k);
    fill(matrix, w);
    for (Activation activation : {Activation::none, Activation::relu, Activation::gelu, Activation::gelu_tanh, Activation::silu}) {
        LinearArgs args{};
        args.activation = activation;
        const std::vector<float> out = product(matrix, x, m, args);
        for (std::int64_t i = 0; i < m; ++i) {
            const double v = x[i];
            double expected = v;
            if (activation == Activation::relu) expected = std::max(v, 0.0);
            if (activation == Activation::gelu) expected = v * 0.5 * std::erfc(-v * std::sqrt(0.5));
            if (activation == Activation::gelu_tanh)
                expected = 0.5 * v * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (v + 0.044715 * v * v * v)));
            if (activation == Activation::silu) expected = v / (1 + std::exp(-v));
            if (std::isinf(expected) || std::isnan(expected)) {
                CHECK(out[i * n] == out[i * n] && out[i * n] > 1e30f);
                continue;
            }
            CHECK(std::fabs(out[i * n] - expected) <= 3e-7 * std::max(1.0, std::fabs(v)) + 2e-6 * std::fabs(expected));
        }
    }
}

LEVEL_TEST(residual_and_strides) {
    Random random(7);
    const std::int64_t m = 20, n = 37, k = 50, stride = 53;
    const std::vector<float> w = random.numbers(n * k), x = random.numbers(m * stride);
    Matrix matrix(Storage::f32, n, k, k);
    fill(matrix, w);
    std::vector<float> dense(m * k), out(m * stride, 7.0f);
    for (std::int64_t i = 0; i < m; ++i) std::memcpy(&dense[i * k], &x[i * stride], k * sizeof(float));
    const std::vector<float> plain = product(matrix, dense, m);
    LinearArgs args{};
    args.weight = &matrix.packed();
    args.x.data = x.data();
    args.x.stride = stride;
    args.rows = m;
    args.out = out.data();
    args.residual = out.data();  // added to what is there
    args.out_stride = args.residual_stride = stride;
    linear(args);
    for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < stride; ++j)
            CHECK(out[i * stride + j] == (j < n ? plain[i * n + j] + 7.0f : 7.0f));
}

LEVEL_TEST(callers_on_several_threads) {
    Random random(8);
    const std::int64_t m = 50, n = 130, k = 300;
    const std::vector<float> w = random.numbers(n * k), x = random.numbers(m * k);
    ThreadPool::instance().set_threads(3);
    Matrix matrix(Storage::i8, n, k, k);
    fill(matrix, w);
    const std::vector<float> expected = product(matrix, x, m);
    std::vector<std::thread> callers;
    bool same[4] = {};
    for (bool& result : same)
        callers.emplace_back([&] {
            bool well = true;
            for (int i = 0; i < 5; ++i) well = well && product(matrix, x, m) == expected;
            result = well;
        });
    for (std::thread& caller : callers) caller.join();
    for (bool result : same) CHECK(result);
    ThreadPool::instance().set_threads(2);
}
