// The affine map for a few rows: out[m, n] = activation(x[m] · w[n] + bias[n]) * scale[n] + residual[m, n].
// It is bound by reading w, so each row of w is read once, by WARPS warps of one block, for all ROWS rows of x. The first
// numbers of w are asked for before the kernel before this one has ended.
// GATED: w has a row n of gates and a row outputs + n; the result is silu(x[m] · gate) * (x[m] · other).
// NORM: x is divided by its root mean square and multiplied by `gain` first, and block 0 writes that to `normed` too.
// X: type of x, residual and result; Y: of w; W: of bias and scale; G: of gain. Rows of w are a multiple of 16 bytes long,
// and with NORM those of x and gain too.
#include "common.cuh"

namespace {

constexpr int THREADS = 256;
constexpr int OUTPUTS = THREADS / 32 / WARPS;  // of one block
constexpr int HALVES = GATED ? 2 : 1;          // rows of w that make a result
constexpr int STEP = Pack<Y>::SIZE;
constexpr int STRIDE = WARPS * 32 * STEP;
constexpr int AHEAD = ROWS > 4 ? 2 : 4;  // loads under way in each thread
constexpr int SIZE = Pack<X>::SIZE;

DEVICE void fetch(Pack<Y> (&ahead)[HALVES][AHEAD], const Y* row, i64 other, int at, int inputs) {
#pragma unroll
    for (int half = 0; half < HALVES; ++half)
#pragma unroll
        for (int i = 0; i < AHEAD; ++i)
            if (at + i * STRIDE < inputs) ahead[half][i] = stream_pack(row + half * other + at + i * STRIDE);
}

// One over the root mean square of a row, in every lane.
DEVICE float inverse_root(const X* row, int inputs, int lane, float eps) {
    float squares = 0.0f;
    for (int at = lane * SIZE; at < inputs; at += 32 * SIZE) {
        float values[SIZE];
        read(values, row + at);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) squares = fmaf(values[i], values[i], squares);
    }
    return 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(inputs) + eps);
}

template <int N> DEVICE void normalise(float (&values)[N], const G* gain, float inverse) {
    float gains[N];
    read(gains, gain);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = rounded<X>(values[i] * inverse * gains[i]);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
    matvec(X* out, const X* x, const Y* w, const W* bias, const W* scale, const X* residual, const G* gain, X* normed,
           i64 rows, i64 outputs, i64 width, i64 x_stride, i64 residual_stride, i64 activation, double eps) {
    next_may_start();
    __shared__ float partial[THREADS / 32][HALVES][ROWS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, inputs = static_cast<int>(width);
    const i64 n = min(static_cast<i64>(blockIdx.x) * OUTPUTS + warp / WARPS, outputs - 1);
    const Y* row = w + n * width;
    const int begin = (warp % WARPS * 32 + lane) * STEP;
    Pack<Y> ahead[HALVES][AHEAD];
    fetch(ahead, row, outputs * width, begin, inputs);
    wait_for_previous();
    float inverse[ROWS];
    if constexpr (NORM) {
#pragma unroll
        for (int m = 0; m < ROWS; ++m)
            inverse[m] = inverse_root(x + min(static_cast<i64>(m), rows - 1) * x_stride, inputs, lane,
                                      static_cast<float>(eps));
    }
    float sums[HALVES][ROWS] = {};
    for (int at = begin; at < inputs; at += AHEAD * STRIDE) {
        if (at != begin) fetch(ahead, row, outputs * width, at, inputs);
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            const int column = at + i * STRIDE;
            if (column >= inputs) break;
#pragma unroll
            for (int m = 0; m < ROWS; ++m) {
                float values[STEP];
                read(values, x + min(static_cast<i64>(m), rows - 1) * x_stride + column);
                if constexpr (NORM) normalise(values, gain + column, inverse[m]);
#pragma unroll
                for (int half = 0; half < HALVES; ++half)
#pragma unroll
                    for (int e = 0; e < STEP; ++e)
                        sums[half][m] = fmaf(values[e], to_float(ahead[half][i].at[e]), sums[half][m]);
            }
        }
    }
#pragma unroll
    for (int half = 0; half < HALVES; ++half)
#pragma unroll
        for (int m = 0; m < ROWS; ++m) {
            const float sum = warp_sum(sums[half][m]);
            if (lane == 0) partial[warp][half][m] = sum;
        }
    if constexpr (NORM) {
        if (blockIdx.x == 0)
            for (int m = 0; m < rows; ++m)
                for (int at = threadIdx.x * SIZE; at < inputs; at += THREADS * SIZE) {
                    float values[SIZE];
                    read(values, x + m * x_stride + at);
                    normalise(values, gain + at, inverse[m]);
                    write(normed + m * width + at, values);
                }
    }
    __syncthreads();
    if (threadIdx.x >= OUTPUTS * ROWS) return;
    const int m = threadIdx.x % ROWS, output = threadIdx.x / ROWS;
    const i64 target = static_cast<i64>(blockIdx.x) * OUTPUTS + output;
    if (m >= rows || target >= outputs) return;
    float total[HALVES] = {};
#pragma unroll
    for (int half = 0; half < HALVES; ++half)
#pragma unroll
        for (int i = 0; i < WARPS; ++i) total[half] += partial[output * WARPS + i][half][m];
    float y = total[0];
    if constexpr (GATED) {
        y = activate(rounded<X>(y), 3) * rounded<X>(total[HALVES - 1]);
    } else {
        if (bias) y += to_float(bias[target]);
        y = activate(y, static_cast<int>(activation));
        if (scale) y *= to_float(scale[target]);
        if (residual) y += to_float(residual[m * residual_stride + target]);
    }
    out[m * outputs + target] = Rounded<X>::of(y);
}
