// The search for the best of many vectors against a sort of products in double precision.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "check.h"
#include "core/thread_pool.h"
#include "ops/search.h"
#include "random.h"

using namespace tallow;
using testing::Random;

namespace {

// Vectors of small whole numbers, which every element type holds and whose products are exact.
struct Vectors {
    std::int64_t rows, width, stride;
    std::vector<float> values;
    std::vector<std::uint16_t> halves;
    std::vector<std::int8_t> bytes;
    std::vector<float> scales;

    Vectors(std::int64_t n, std::int64_t w, Random& random)
        : rows(n), width(w), stride(w + 1), values(n * stride), halves(n * stride), bytes(n * stride), scales(n) {
        for (std::int64_t i = 0; i < n * stride; ++i) {
            const int value = static_cast<int>(random.below(9)) - 4;
            values[i] = static_cast<float>(value);
            bytes[i] = static_cast<std::int8_t>(value);
            static constexpr std::uint16_t magnitudes[] = {0x0000, 0x3c00, 0x4000, 0x4200, 0x4400};  // 0 to 4 in float16
            halves[i] = static_cast<std::uint16_t>(magnitudes[std::abs(value)] | (value < 0 ? 0x8000 : 0));
        }
        for (float& scale : scales) scale = random.below(2) ? 0.5f : 2.0f;
    }

    ScoreArgs args(Element element) const {
        ScoreArgs args{};
        args.vectors = element == Element::f32 ? static_cast<const void*>(values.data())
                       : element == Element::f16 ? static_cast<const void*>(halves.data())
                                                 : static_cast<const void*>(bytes.data());
        args.vector_stride = stride;
        args.element = element;
        args.scales = scales.data();
        args.scale_stride = 1;
        return args;
    }
};

}  // namespace

LEVEL_TEST(the_best_vectors) {
    Random random(41);
    for (std::int64_t rows : {1, 3, 50, 1000})
        for (std::int64_t width : {1, 7, 16, 33, 100})
            for (std::int64_t count : {1, 2, 7}) {
                const Vectors vectors(rows, width, random);
                std::vector<float> queries(count * width);
                for (float& value : queries) value = static_cast<float>(random.below(5) - 2);
                const std::int64_t k = 1 + random.below(20);
                for (Element element : {Element::f32, Element::f16, Element::i8})
                    for (int threads : {1, 3}) {
                        ThreadPool::instance().set_threads(threads);
                        Search search(queries.data(), count, width, k);
                        search.add(vectors.args(element), rows, 5);
                        const std::int64_t found = std::min(k, rows);
                        CHECK(search.found() == found);
                        std::vector<float> scores(count * found);
                        std::vector<std::int64_t> indices(count * found);
                        search.results(scores.data(), indices.data());
                        for (std::int64_t query = 0; query < count; ++query) {
                            std::vector<double> exact(rows);
                            for (std::int64_t row = 0; row < rows; ++row) {
                                for (std::int64_t i = 0; i < width; ++i)
                                    exact[row] += double(queries[query * width + i]) * vectors.values[row * vectors.stride + i];
                                exact[row] *= vectors.scales[row];
                            }
                            std::vector<std::int64_t> order(rows);
                            std::iota(order.begin(), order.end(), 0);
                            std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return exact[a] > exact[b]; });
                            for (std::int64_t i = 0; i < found; ++i) {
                                CHECK(indices[query * found + i] == order[i] + 5);
                                CHECK(scores[query * found + i] == exact[order[i]]);
                            }
                        }
                    }
            }
    ThreadPool::instance().set_threads(2);
}

LEVEL_TEST(scores_that_are_no_numbers_come_last) {
    const float nan = std::numeric_limits<float>::quiet_NaN(), scale = 1.0f;
    const std::vector<float> vectors{nan, 1, nan, 3, -std::numeric_limits<float>::infinity(), nan, 3, 2};
    const float query = 1.0f;
    Search search(&query, 1, 1, 7);
    ScoreArgs args{};
    args.vectors = vectors.data();
    args.vector_stride = 1;
    args.element = Element::f32;
    args.scales = &scale;
    search.add(args, 8, 0);
    float scores[7];
    std::int64_t indices[7];
    search.results(scores, indices);
    const std::int64_t wanted[] = {3, 6, 7, 1, 4, 0, 2};
    CHECK(std::memcmp(indices, wanted, sizeof(wanted)) == 0);
    CHECK(std::isnan(scores[5]) && std::isnan(scores[6]) && scores[0] == 3);
}
