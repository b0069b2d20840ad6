#include "ops/positions.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "core/kernels.h"
#include "core/thread_pool.h"

namespace tallow {

namespace {

// Angles whose sines are worth waking another thread for.
constexpr std::int64_t worth_sharing = 4096;
// Numbers to turn that are.
constexpr std::int64_t worth_turning = 16384;

}  // namespace

void next_positions(const PositionsArgs& args) {
    for (std::int64_t row = 0; row < args.rows; ++row) {
        const std::int64_t first = args.lengths[row] + (args.counts ? args.counts[row] : args.n) - args.n;
        for (std::int64_t i = 0; i < args.n; ++i) args.out[row * args.n + i] = std::max<std::int64_t>(first + i, 0);
    }
}

void gather_rows(const GatherArgs& args) {
    for (std::int64_t i = 0; i < args.count; ++i)
        if (args.ids[i] < 0 || args.ids[i] >= args.rows)
            throw std::out_of_range("row " + std::to_string(args.ids[i]) + " of " + std::to_string(args.rows));
    for (std::int64_t i = 0; i < args.count; ++i)
        std::copy_n(args.table + args.ids[i] * args.row_stride, args.width, args.out + i * args.width);
}

void rotary_angles(const AnglesArgs& args) {
    parallel_for(args.count, worth_sharing / (args.pairs + 1) + 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin * args.pairs; i < end * args.pairs; ++i) {
            // The angle is rounded to a float as the models' own code rounds it; its sine is then exact.
            const float angle = static_cast<float>(args.positions[i / args.pairs]) * args.frequencies[i % args.pairs];
            args.cos[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * args.factor;
            args.sin[i] = static_cast<float>(std::sin(static_cast<double>(angle))) * args.factor;
        }
    });
}

void rope(const RopeArgs& args, std::int64_t batch) {
    parallel_for(batch * args.n, worth_turning / (args.heads * args.pairs * 2 + 1) + 1,
                 [&](std::int64_t begin, std::int64_t end) { kernels().rope(args, begin, end); });
}

}  // namespace tallow
