#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/kernels.h"
#include "core/thread_pool.h"
#include "ops/rowwise.h"

namespace tallow {

namespace {

constexpr std::int64_t span_width = 16384;  // numbers that are worth another thread

// Of numbers that are not NaN, what comes first in the result.
bool before(const Largest& a, const Largest& b) { return a.value != b.value ? a.value > b.value : a.index < b.index; }

// Writes the first `count` of some numbers, sorted; places are counted from `first`. Returns how many there are.
std::int64_t select(const float* x, std::int64_t width, std::int64_t first, std::int64_t count, Largest* best) {
    const std::int64_t held = std::min(count, width);
    if (held == 0) return 0;
    for (std::int64_t i = 0; i < held; ++i) best[i] = {x[i], first + i};
    std::make_heap(best, best + held, before);  // its front is the worst
    // Places ascend, so a number that equals the worst comes too late.
    for (std::int64_t i = held; (i = kernels().next_above(x, i, width, best->value)) < width; ++i) {
        std::pop_heap(best, best + held, before);
        best[held - 1] = {x[i], first + i};
        std::push_heap(best, best + held, before);
    }
    std::sort_heap(best, best + held, before);
    return held;
}

// What a thread finds in a stretch of a row.
struct Span {
    Exponentials exponentials;
    std::int64_t found;
};

// The row's: exp(x) of all its numbers together is exp(highest) · sum.
Exponentials joined(const Span* spans, std::int64_t count) {
    Exponentials all{-std::numeric_limits<float>::infinity(), 0.0f};
    for (std::int64_t i = 0; i < count; ++i) all.highest = std::max(all.highest, spans[i].exponentials.highest);
    for (std::int64_t i = 0; i < count; ++i) {
        const auto [highest, sum] = spans[i].exponentials;
        all.sum += sum == 0.0f ? 0.0f : sum * std::exp(highest - all.highest);
    }
    return all;
}

}  // namespace

void top_logprobs(const LogprobArgs& args) {
    const std::int64_t spans = (args.width + span_width - 1) / span_width;  // of each row
    const std::int64_t most = std::min(args.top, (args.width + spans - 1) / spans);  // that a span can give
    std::vector<Span> parts(args.rows * spans);
    std::vector<Largest> best(args.rows * spans * most);
    parallel_for(args.rows * spans, std::max<std::int64_t>(span_width * spans / args.width, 1),
                 [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::int64_t part = i % spans, from = args.width * part / spans, to = args.width * (part + 1) / spans;
            const float* x = args.x + i / spans * args.x_stride + from;
            const Exponentials exponentials = kernels().sum_exponentials(x, to - from);
            const bool numbers = !std::isnan(exponentials.sum);  // else the whole row is NaN
            parts[i] = {exponentials, numbers ? select(x, to - from, from, most, best.data() + i * most) : 0};
        }
    });
    for (std::int64_t row = 0; row < args.rows; ++row) {
        const float* x = args.x + row * args.x_stride;
        const auto [highest, sum] = joined(parts.data() + row * spans, spans);
        const float nan = std::numeric_limits<float>::quiet_NaN(), log_sum = std::log(sum);
        std::int64_t* ids = args.ids + row * (args.top + 1);
        float* values = args.values + row * (args.top + 1);
        const std::int64_t given = args.given[row];
        ids[0] = given;
        values[0] = given >= 0 && given < args.width ? x[given] - highest - log_sum : nan;
        Largest* const first = best.data() + row * spans * most;
        Largest* last = first;
        for (std::int64_t i = 0; i < spans; ++i)
            for (std::int64_t j = 0; j < parts[row * spans + i].found; ++j) *last++ = first[i * most + j];
        const bool numbers = sum > 0.0f;  // neither NaN nor 0
        if (numbers) std::partial_sort(first, first + args.top, last, before);
        for (std::int64_t i = 0; i < args.top; ++i) {
            ids[i + 1] = numbers ? first[i].index : i;
            values[i + 1] = numbers ? first[i].value - highest - log_sum : nan;
        }
    }
}

}  // namespace tallow
