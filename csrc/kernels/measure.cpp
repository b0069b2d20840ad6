// Loops that reach a limit of the machine and do nothing else: what kernels are measured against.
#include "kernels/simd.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

constexpr int chains = vector_registers == 32 ? 24 : 12;  // under way at once: more than the latency asks for

float multiply_add_loop(int64_t steps) {
    F32 sums[chains];
    TALLOW_UNROLL
    for (int i = 0; i < chains; ++i) sums[i] = set(float(i));
    const F32 half = set(0.5f);
    for (int64_t step = 0; step < steps; ++step) {
        TALLOW_UNROLL
        for (int i = 0; i < chains; ++i) sums[i] = fma(sums[i], half, half);
    }
    F32 total = sums[0];
    for (int i = 1; i < chains; ++i) total = total + sums[i];
    return sum(total);
}

float read_loop(const float* data, int64_t n) {
    constexpr int at_once = 8;
    F32 sums[at_once];
    TALLOW_UNROLL
    for (int i = 0; i < at_once; ++i) sums[i] = set(0.0f);
    for (int64_t at = 0; at + at_once * width <= n; at += at_once * width) {
        TALLOW_UNROLL
        for (int i = 0; i < at_once; ++i) sums[i] = sums[i] + load(data + at + i * width);
    }
    F32 total = sums[0];
    for (int i = 1; i < at_once; ++i) total = total + sums[i];
    return sum(total);
}

}  // namespace

void add_measure_kernels(Kernels& table) {
    table.multiply_add_loop = multiply_add_loop;
    table.multiply_adds_in_step = chains * width;
    table.read_loop = read_loop;
}

}  // namespace tallow::TALLOW_LEVEL
