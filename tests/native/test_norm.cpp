// Norms and rotary embeddings against plain loops in double precision.
#include <cmath>

#include "check.h"
#include "core/thread_pool.h"
#include "ops/norm.h"
#include "ops/positions.h"
#include "random.h"

using namespace tallow;
using testing::Random;

namespace {

// (x - mean) / deviation for layer norm, x / root mean square for RMS norm; then weight and bias.
std::vector<double> normed(const float* x, const NormArgs& args, bool centred) {
    double mean = 0, square = 0;
    for (std::int64_t j = 0; j < args.width; ++j) mean += centred ? double(x[j]) / args.width : 0.0;
    for (std::int64_t j = 0; j < args.width; ++j) square += (x[j] - mean) * (x[j] - mean) / args.width;
    std::vector<double> result;
    for (std::int64_t j = 0; j < args.width; ++j)
        result.push_back((x[j] - mean) / std::sqrt(square + args.eps) * (args.weight ? args.weight[j] : 1.0) +
                         (args.bias ? args.bias[j] : 0.0));
    return result;
}

}  // namespace

LEVEL_TEST(norms) {
    Random random(31);
    for (std::int64_t width : {1, 3, 4, 15, 16, 17, 384, 1001})
        for (std::int64_t inner : {1, 3}) {
            const std::int64_t rows = 2 * inner * (1 + random.below(20)), stride = width + 2, outer = inner * stride + 5;
            std::vector<float> x = random.numbers(rows / inner * outer), out(rows * (width + 1), 7.0f);
            const std::vector<float> weight = random.numbers(width), bias = random.numbers(width);
            for (std::int64_t j = 0; j < width; ++j) x[j] = 3.0f;  // nothing deviates
            for (int options = 0; options < 4; ++options) {
                const bool centred = options & 1, plain = options & 2;
                const NormArgs args{out.data(), x.data(), plain ? nullptr : weight.data(),
                                    plain || !centred ? nullptr : bias.data(), rows, width, width + 1, stride, inner, outer, 1e-5f};
                (centred ? layer_norm : rms_norm)(args);
                for (std::int64_t i = 0; i < rows; ++i) {
                    const std::vector<double> wanted = normed(&x[i / inner * outer + i % inner * stride], args, centred);
                    for (std::int64_t j = 0; j < width; ++j)
                        CHECK(std::fabs(out[i * (width + 1) + j] - wanted[j]) <= 2e-5 + 2e-6 * std::fabs(wanted[j]));
                    CHECK(out[i * (width + 1) + width] == 7.0f);
                }
            }
        }
}

LEVEL_TEST(rotary_embeddings) {
    Random random(32);
    const std::int64_t batch = 2, n = 3, heads = 2;
    for (std::int64_t pairs : {1, 2, 5, 16, 32, 45}) {
        const std::int64_t head = 2 * pairs + 1, step = heads * head + 4;
        const std::vector<float> x = random.numbers(batch * n * step), frequencies = random.numbers(pairs);
        const std::vector<std::int64_t> positions{0, 1, 2, 70, 71, 4000};
        std::vector<float> cos(batch * n * pairs), sin(cos.size()), out(batch * n * heads * 2 * pairs);
        rotary_angles({cos.data(), sin.data(), positions.data(), frequencies.data(), batch * n, pairs, 1.5f});
        rope({out.data(), x.data(), n * step, step, head, cos.data(), sin.data(), n * pairs, n, heads, pairs}, batch);
        for (std::int64_t i = 0; i < batch * n; ++i)
            for (std::int64_t h = 0; h < heads; ++h)
                for (std::int64_t j = 0; j < pairs; ++j) {
                    const float angle = static_cast<float>(positions[i]) * frequencies[j];
                    const double c = 1.5 * std::cos(double(angle)), s = 1.5 * std::sin(double(angle));
                    const float *from = &x[i * step + h * head], *found = &out[(i * heads + h) * 2 * pairs];
                    CHECK(std::fabs(found[j] - (from[j] * c - from[pairs + j] * s)) <= 1e-6);
                    CHECK(std::fabs(found[pairs + j] - (from[pairs + j] * c + from[j] * s)) <= 1e-6);
                }
    }
}
