#include "ops/rowwise.h"

#include <algorithm>

#include "core/kernels.h"
#include "core/thread_pool.h"

namespace tallow {

namespace {

// Numbers that are worth another thread.
constexpr std::int64_t worth_sharing = 16384;

}  // namespace

void activate(const ActivationArgs& args) {
    if (args.width == 0) return;
    const std::int64_t spans = (args.width + worth_sharing - 1) / worth_sharing;  // of each row
    const std::int64_t span = (args.width + spans - 1) / spans, grain = worth_sharing / span;
    parallel_for(args.rows * spans, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t from = i % spans * span, to = std::min(from + span, args.width);
            kernels().activate(args, i / spans, from, to);
        }
    });
}

void softmax(const SoftmaxArgs& args) {
    parallel_for(args.rows, worth_sharing / (args.width + 1) + 1,
                 [&](std::int64_t begin, std::int64_t end) { kernels().softmax(args, begin, end); });
}

}  // namespace tallow
