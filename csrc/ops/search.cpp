#include "ops/search.h"

#include <algorithm>
#include <cmath>

#include "core/kernels.h"
#include "core/scratch.h"
#include "core/thread_pool.h"

namespace tallow {

namespace {

constexpr std::int64_t block_scores = 1 << 18;  // that wait to be looked through: 1 MB, which the caches hold
constexpr std::int64_t tile_bytes = 128 << 10;  // of vectors that a thread takes at once, for all queries

std::int64_t clamp(std::int64_t x, std::int64_t least, std::int64_t most) { return x < least ? least : x > most ? most : x; }

}  // namespace

Search::Search(const float* queries, std::int64_t count, std::int64_t width, std::int64_t k)
    : width_(width), k_(k), query_values_(queries, queries + count * width), best_(static_cast<std::size_t>(count)) {}

std::int64_t Search::found() const { return best_.empty() ? 0 : static_cast<std::int64_t>(best_[0].size()); }

void Search::add(ScoreArgs args, std::int64_t rows, std::int64_t first) {
    if (rows <= 0 || best_.empty()) return;
    args.queries = query_values_.data();
    args.query_count = queries();
    args.width = width_;
    const std::int64_t block = std::min(rows, clamp(block_scores / queries(), 256, 1 << 16));
    args.score_stride = block + 16;  // so that a row's scores do not all fall into the same set of the cache
    const auto waiting = static_cast<std::size_t>(args.score_stride * queries());
    if (scores_.size() < waiting) scores_.resize(waiting);
    args.scores = scores_.data();
    const std::int64_t size = args.element == Element::f32 ? 4 : args.element == Element::f16 ? 2 : 1;
    const std::int64_t grain = clamp(tile_bytes / (width_ * size + 1), 1, 4096) / score_rows * score_rows + score_rows;
    const auto scratch_bytes = static_cast<std::size_t>(score_rows * width_ + 1) * sizeof(float);
    for (std::int64_t begin = 0; begin < rows; begin += block) {
        const std::int64_t count = std::min(block, rows - begin);
        parallel_for(count, grain, [&](std::int64_t from, std::int64_t to) {
            kernels().score(args, from, to, static_cast<float*>(thread_scratch(scratch_bytes)));
        });
        parallel_for(queries(), 1, [&](std::int64_t query, std::int64_t) {
            select(best_[query], args.scores + query * args.score_stride, count, first + begin);
        });
        args.vectors = static_cast<const char*>(args.vectors) + count * args.vector_stride * size;
        args.scales += count * args.scale_stride;
    }
}

bool Search::before(const Found& a, const Found& b) {
    const bool a_nan = std::isnan(a.score), b_nan = std::isnan(b.score);
    if (a_nan != b_nan) return b_nan;
    if (!a_nan && a.score != b.score) return a.score > b.score;
    return a.index < b.index;
}

// Indices ascend, so a score that equals the worst of k comes too late.
void Search::select(std::vector<Found>& best, const float* scores, std::int64_t count, std::int64_t first) const {
    std::int64_t i = 0;
    for (; i < count && static_cast<std::int64_t>(best.size()) < k_; ++i) {
        best.push_back({scores[i], first + i});
        std::push_heap(best.begin(), best.end(), before);
    }
    while (i < count) {
        const float worst = best.front().score;
        if (std::isnan(worst))
            while (i < count && std::isnan(scores[i])) ++i;
        else
            i = kernels().next_above(scores, i, count, worst);
        if (i == count) return;
        std::pop_heap(best.begin(), best.end(), before);
        best.back() = {scores[i], first + i};
        std::push_heap(best.begin(), best.end(), before);
        ++i;
    }
}

void Search::results(float* scores, std::int64_t* indices) {
    const std::int64_t n = found();
    parallel_for(queries(), 1, [&](std::int64_t query, std::int64_t) {
        std::vector<Found>& best = best_[query];
        std::sort_heap(best.begin(), best.end(), before);
        for (std::int64_t i = 0; i < n; ++i) {
            scores[query * n + i] = best[i].score;
            indices[query * n + i] = best[i].index;
        }
    });
}

}  // namespace tallow
