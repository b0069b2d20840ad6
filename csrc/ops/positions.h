// Where new tokens stand, what a table has for them, and by which angles rotary embeddings turn what stands there.
#pragma once

#include <cstdint>

#include "kernels/rope.h"

namespace tallow {

struct PositionsArgs {
    std::int64_t* out;            // (rows, n)
    const std::int64_t* lengths;  // (rows) positions that each row holds already
    const std::int64_t* counts;   // (rows) how many of the n belong to each row, its last ones; or nullptr for all
    std::int64_t rows, n;
};

// The n positions behind those held; 0 for what fills a row up in front.
void next_positions(const PositionsArgs& args);

struct GatherArgs {
    float* out;  // (count, width)
    const float* table;
    std::int64_t rows, row_stride;  // of the table, in floats
    const std::int64_t* ids;
    std::int64_t count, width;
};

// The rows of a table by index; throws std::out_of_range for an index outside it.
void gather_rows(const GatherArgs& args);

struct AnglesArgs {
    float *cos, *sin;  // (count, pairs)
    const std::int64_t* positions;
    const float* frequencies;  // radians from one position to the next
    std::int64_t count, pairs;
    float factor;  // of both results
};

void rotary_angles(const AnglesArgs& args);
void rope(const RopeArgs& args, std::int64_t batch);

}  // namespace tallow
