// Products with GGUF's blocks, against the weights that the matrix itself says it holds.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "check.h"
#include "core/kernels.h"
#include "core/thread_pool.h"
#include "ops/linear.h"
#include "ops/packing.h"
#include "random.h"

using namespace tallow;
using testing::Random;

namespace {

constexpr Storage kinds[] = {Storage::q8_0, Storage::q4_0, Storage::q4_1, Storage::q5_0,
                             Storage::q5_1, Storage::q4_k, Storage::q5_k, Storage::q6_k};
constexpr std::uint16_t half_one = 0x3c00;

struct Case {
    std::int64_t m, n, blocks;
};
const Case cases[] = {{1, 1, 1}, {1, 70, 3}, {2, 33, 1}, {3, 64, 2}, {7, 31, 4}, {25, 40, 2}, {61, 5, 3}, {2, 5, 0}};

// Blocks of one kind: all bytes random, or all alike; every scale and minimum of a block 1.
std::unique_ptr<Matrix> random_blocks(Storage kind, std::int64_t n, std::int64_t blocks, Random& random, int fill = -1) {
    const MatrixKernels& kernels = tallow::kernels().matrix[static_cast<int>(kind)];
    std::vector<unsigned char> raw(n * blocks * kernels.source_bytes);
    for (unsigned char& byte : raw) byte = static_cast<unsigned char>(fill < 0 ? random.below(256) : fill);
    const bool minima = kind == Storage::q4_1 || kind == Storage::q5_1 || kind == Storage::q4_k || kind == Storage::q5_k;
    for (std::int64_t i = 0; i < n * blocks; ++i) {
        unsigned char* block = raw.data() + i * kernels.source_bytes;
        std::memcpy(block + (kind == Storage::q6_k ? 208 : 0), &half_one, 2);
        if (minima) std::memcpy(block + 2, &half_one, 2);
    }
    auto matrix = std::make_unique<Matrix>(kind, n, blocks * kernels.padding, kernels.group);
    const std::int64_t stride = blocks * kernels.source_bytes, first = n / 3;
    matrix->pack_later({{raw.data(), first, stride, false}, {raw.data() + first * stride, n - first, stride, false}}, nullptr);
    matrix->settle();
    return matrix;
}

// Whole numbers up to 127 that the kernels keep as they are: each group has one of the largest.
std::vector<float> whole_numbers(std::int64_t m, const PackedMatrix& w, Random& random, bool extreme) {
    std::vector<float> x(m * w.k);
    for (float& value : x) value = extreme ? (random.below(2) ? 127.0f : -127.0f) : float(random.below(255) - 127);
    for (std::int64_t i = 0; i < m * w.k; i += w.group) x[i] = 127;
    return x;
}

std::vector<float> product(const PackedMatrix& w, const std::vector<float>& x, std::int64_t row, std::int64_t count) {
    std::vector<float> out(count * w.n);
    LinearArgs args{};
    args.weight = &w;
    args.x.data = x.data() + row * w.k;
    args.x.stride = w.k;
    args.rows = count;
    args.out = out.data();
    args.out_stride = w.n;
    linear(args);
    return out;
}

void check(const Matrix& matrix, const std::vector<float>& x, std::int64_t m) {
    const PackedMatrix& w = matrix.packed();
    std::vector<float> wide(w.n * w.k);
    matrix.rows(nullptr, w.n, wide.data());
    const std::vector<float> out = product(w, x, 0, m);
    for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < w.n; ++j) {
            double sum = 0, size = 0;
            for (std::int64_t k = 0; k < w.k; ++k) {
                sum += double(x[i * w.k + k]) * wide[j * w.k + k];
                size += std::fabs(double(x[i * w.k + k])) * (std::fabs(wide[j * w.k + k]) + 64);  // codes and minima cancel
            }
            CHECK(testing::near(out[i * w.n + j], sum, size, w.k / w.group));
        }
}

}  // namespace

LEVEL_TEST(block_products) {
    Random random(1);
    for (Storage kind : kinds)
        for (const Case& c : cases) {
            const auto matrix = random_blocks(kind, c.n, c.blocks, random);
            check(*matrix, whole_numbers(c.m, matrix->packed(), random, false), c.m);
        }
}

LEVEL_TEST(extreme_blocks) {
    Random random(2);
    for (Storage kind : kinds)
        for (int fill : {0x00, 0x7f, 0x80, 0x81, 0xff}) {
            const auto matrix = random_blocks(kind, 37, 2, random, fill);
            check(*matrix, whole_numbers(9, matrix->packed(), random, true), 9);
        }
}

LEVEL_TEST(rows_times_blocks_do_not_depend_on_their_neighbours) {
    Random random(3);
    const std::int64_t m = 41;
    for (Storage kind : kinds) {
        const auto matrix = random_blocks(kind, 75, 2, random);
        const PackedMatrix& w = matrix->packed();
        const std::vector<float> x = random.numbers(m * w.k);
        ThreadPool::instance().set_threads(1);
        const std::vector<float> whole = product(w, x, 0, m);
        for (int threads : {1, 3}) {
            ThreadPool::instance().set_threads(threads);
            for (std::int64_t size : {1, 2, 5, 16, 40})
                for (std::int64_t row = 0; row < m; row += size) {
                    const std::int64_t count = std::min(size, m - row);
                    const std::vector<float> part = product(w, x, row, count);
                    CHECK(std::memcmp(part.data(), whole.data() + row * w.n, part.size() * sizeof(float)) == 0);
                }
        }
    }
    ThreadPool::instance().set_threads(2);
}
