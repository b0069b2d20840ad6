// The best of many vectors for each of some queries, exactly.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/search.h"

namespace tallow {

// Vectors come in pieces, in ascending order of their indices. A better score comes first, of equal ones that of the
// lower index, and NaN behind all others.
class Search {
public:
    Search(const float* queries, std::int64_t count, std::int64_t width, std::int64_t k);  // copies the queries

    std::int64_t queries() const { return static_cast<std::int64_t>(best_.size()); }
    std::int64_t width() const { return width_; }
    std::int64_t found() const;  // of each query: k, or as many vectors as there were

    // Rows of `args`, which says all of the vectors and their scales; the first has the index `first`.
    void add(ScoreArgs args, std::int64_t rows, std::int64_t first);

    // Sorts what was found: (queries, found) each. No more vectors may be added.
    void results(float* scores, std::int64_t* indices);

private:
    struct Found {
        float score;
        std::int64_t index;
    };
    static bool before(const Found& a, const Found& b);
    void select(std::vector<Found>& best, const float* scores, std::int64_t count, std::int64_t first) const;

    std::int64_t width_, k_;
    std::vector<float> query_values_;
    std::vector<float> scores_;  // of a block of rows for each query
    std::vector<std::vector<Found>> best_;  // of each query, a heap whose front is the worst
};

}  // namespace tallow
