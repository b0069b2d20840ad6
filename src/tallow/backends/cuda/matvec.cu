// The affine map for a few rows: out[m, n] = activation(x[m] · w[n] + bias[n]) * scale[n] + residual[m, n].
// It is bound by reading w, so each row of w is read once, by WARPS warps of one block, for all ROWS rows of x.
// X: type of x, residual and result; Y: of w; W: of bias and scale. Rows of w are a multiple of 16 bytes long.
#include "common.cuh"

namespace {

constexpr int THREADS = 256;
constexpr int OUTPUTS = THREADS / 32 / WARPS;  // of one block
constexpr int STEP = Pack<Y>::SIZE;
constexpr int AHEAD = ROWS > 4 ? 2 : 4;  // loads under way in each thread

DEVICE void multiply(float (&sums)[ROWS], const Pack<Y>& w, const X* x, i64 stride, i64 last) {
#pragma unroll
    for (int m = 0; m < ROWS; ++m) {
        const X* row = x + (m < last ? m : last) * stride;
#pragma unroll
        for (int part = 0; part < STEP; part += Pack<X>::SIZE < STEP ? Pack<X>::SIZE : STEP) {
            constexpr int WIDTH = Pack<X>::SIZE < STEP ? Pack<X>::SIZE : STEP;
            if constexpr (Pack<X>::SIZE <= STEP) {
                const Pack<X> values = load_pack(row + part);
#pragma unroll
                for (int i = 0; i < WIDTH; ++i) sums[m] = fmaf(to_float(values.at[i]), to_float(w.at[part + i]), sums[m]);
            } else {
#pragma unroll
                for (int i = 0; i < WIDTH; ++i) sums[m] = fmaf(to_float(row[i]), to_float(w.at[i]), sums[m]);
            }
        }
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
    matvec(X* out, const X* x, const Y* w, const W* bias, const W* scale, const X* residual, i64 rows, i64 outputs,
           i64 inputs, i64 x_stride, i64 residual_stride, i64 activation) {
    __shared__ float partial[THREADS / 32][ROWS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const i64 n = static_cast<i64>(blockIdx.x) * OUTPUTS + warp / WARPS;
    float sums[ROWS] = {};
    if (n < outputs) {
        const Y* row = w + n * inputs;
        constexpr int STRIDE = WARPS * 32 * STEP;
        i64 at = (warp % WARPS * 32 + lane) * STEP;
        for (; at + (AHEAD - 1) * STRIDE < inputs; at += AHEAD * STRIDE) {
            Pack<Y> ahead[AHEAD];
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) ahead[i] = stream_pack(row + at + i * STRIDE);
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) multiply(sums, ahead[i], x + at + i * STRIDE, x_stride, rows - 1);
        }
        for (; at < inputs; at += STRIDE) multiply(sums, stream_pack(row + at), x + at, x_stride, rows - 1);
    }
#pragma unroll
    for (int m = 0; m < ROWS; ++m) {
        sums[m] = warp_sum(sums[m]);
        if (lane == 0) partial[warp][m] = sums[m];
    }
    __syncthreads();
    if (threadIdx.x >= OUTPUTS * ROWS) return;
    const int m = threadIdx.x % ROWS, output = threadIdx.x / ROWS;
    const i64 target = static_cast<i64>(blockIdx.x) * OUTPUTS + output;
    if (m >= rows || target >= outputs) return;
    float y = 0.0f;
#pragma unroll
    for (int i = 0; i < WARPS; ++i) y += partial[output * WARPS + i][m];
    if (bias) y += to_float(bias[target]);
    y = activate(y, static_cast<int>(activation));
    if (scale) y *= to_float(scale[target]);
    if (residual) y += to_float(residual[m * residual_stride + target]);
    out[m * outputs + target] = Rounded<X>::of(y);
}
