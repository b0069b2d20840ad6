#include "ops/rowwise.h"

#include <algorithm>
#include <vector>

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

void argmax(const ArgmaxArgs& args) {
    const std::int64_t spans = (args.width + worth_sharing - 1) / worth_sharing;  // of each row
    std::vector<Largest> found(args.rows * spans);
    parallel_for(args.rows * spans, worth_sharing * spans / args.width, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t part = i % spans, from = args.width * part / spans, to = args.width * (part + 1) / spans;
            found[i] = kernels().argmax(args.x + i / spans * args.x_stride + from, to - from);
            found[i].index += from;
        }
    });
    for (std::int64_t row = 0; row < args.rows; ++row) {
        Largest best = found[row * spans];
        for (std::int64_t i = 1; i < spans && best.value == best.value; ++i) {
            const Largest next = found[row * spans + i];
            if (next.value > best.value || next.value != next.value) best = next;
        }
        args.out[row] = best.index;
    }
}

}  // namespace tallow
