// Where new tokens stand, and the angles that rotary embeddings turn them by.
#include "common.cuh"

// positions (rows, n) of tokens that end rows of `lengths` + counts (or n): 0 for those that belong to no row.
extern "C" __global__ void next_positions(i64* out, const i64* lengths, const i64* counts, i64 total, i64 n) {
    next_may_start();
    wait_for_previous();
    const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= total) return;
    const i64 row = i / n, end = lengths[row] + (counts ? counts[row] : n);
    out[i] = max(end - n + i % n, 0ll);
}

// Cosines and sines of position · frequency, an angle rounded to float32, (positions, pairs) each.
extern "C" __global__ void rotary_angles(float* cosines, float* sines, const i64* positions, const float* frequencies,
                                         i64 total, i64 pairs, double factor) {
    next_may_start();
    wait_for_previous();
    const i64 i = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= total) return;
    const float angle = static_cast<float>(positions[i / pairs]) * frequencies[i % pairs];
    cosines[i] = static_cast<float>(cos(static_cast<double>(angle))) * static_cast<float>(factor);
    sines[i] = static_cast<float>(sin(static_cast<double>(angle))) * static_cast<float>(factor);
}
