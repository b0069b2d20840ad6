// Scores of vectors for queries: inner products in float32.
#pragma once

#include <cstdint>

namespace tallow {

enum class Element : std::uint8_t { f32, f16, i8 };

struct ScoreArgs {
    const float* queries;  // (query_count, width), adjacent
    std::int64_t query_count;
    std::int64_t width;
    const void* vectors;  // rows of `width` elements
    std::int64_t vector_stride;  // in elements
    Element element;
    const float* scales;  // what the products of row i are multiplied with: scales[i * scale_stride]
    std::int64_t scale_stride;
    float* scores;  // of row i for query j: scores[j * score_stride + i]
    std::int64_t score_stride;
};

constexpr int score_rows = 4;  // that a kernel takes at once, for which its scratch has room

}  // namespace tallow
