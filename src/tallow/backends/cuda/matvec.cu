// The affine map for a few rows: out[m, n] = activation(x[m] · w[n] + bias[n]) * scale[n] + residual[m, n].
// It is bound by reading w, so each row of w is read once, by WARPS warps of one block, for all ROWS rows of x. Blocks stay
// on the card and take row after row; the numbers of w that come next are always under way, the first ones before the kernel
// before this one has ended. GATED: w has a row n of gates and a row outputs + n; the result is silu(x[m] · gate) * (x[m] ·
// other). X: type of x, residual and result; Y: of w; W: of bias and scale. Rows of w are a multiple of 16 bytes long.
// SCALED: w's numbers have factors, 1: for each row; 2: for each row (or 1 << factor_shift rows) and 128 columns.
// NORM: how the rows of x are normalised first; see normed.cuh.
#include "normed.cuh"

namespace {

constexpr int THREADS = 256;
constexpr int OUTPUTS = THREADS / 32 / WARPS;  // of one block at a time
constexpr int HALVES = GATED ? 2 : 1;          // rows of w that make a result
constexpr int STEP = Pack<Y>::SIZE;
constexpr int STRIDE = WARPS * 32 * STEP;
constexpr int AHEAD = ROWS > 4 ? 1 : (SCALED ? 2 : 4) / HALVES;  // loads of a chunk, in each thread and half
constexpr int BLOCKS = ROWS <= 2 ? 4 : 1;         // of a multiprocessor: the next kernel's find room too

struct Chunk {
    Pack<Y> at[HALVES][AHEAD];
    float factor[HALVES][SCALED == 2 ? AHEAD : 1];
};

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    matvec(X* out, const X* x, const Y* w, const W* bias, const W* scale, const X* residual, i64 rows, i64 outputs_,
           i64 width, i64 x_stride, i64 residual_stride, i64 activation, const float* factors, i64 factor_stride,
           i64 factor_shift, const X* gain, const X* shift, X* normed, double eps) {
    next_may_start();
    extern __shared__ __align__(16) unsigned char shared[];
    __shared__ float partial[2][THREADS / 32][HALVES][ROWS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int inputs = static_cast<int>(width), outputs = static_cast<int>(outputs_);
    const int stride = static_cast<int>(factor_stride), band = static_cast<int>(factor_shift);
    const int begin = (warp % WARPS * 32 + lane) * STEP, step = gridDim.x * OUTPUTS;
    int n = blockIdx.x * OUTPUTS + warp / WARPS, at = 0;  // the row of w at hand, and where its chunk begins
    int late_n = n, late_at = 0;                          // of the chunk that is asked for next

    const auto fetch = [&](Chunk& chunk) {
        if (late_n < outputs) {
#pragma unroll
            for (int half = 0; half < HALVES; ++half)
#pragma unroll
                for (int i = 0; i < AHEAD; ++i) {
                    const int column = late_at + begin + i * STRIDE;
                    const int of = late_n + half * outputs;
                    if (column < inputs) {
                        chunk.at[half][i] = stream_pack(w + of * width + column);
                        if constexpr (SCALED == 2) chunk.factor[half][i] = factors[(of >> band) * stride + column / 128];
                    }
                }
        }
        late_at += AHEAD * STRIDE;
        if (late_at >= inputs) late_at = 0, late_n += step;
    };

    // The thread that ends a result, and what is added to it, which is asked for beforehand.
    const bool ends = WARPS == 1 ? lane < ROWS : threadIdx.x < OUTPUTS * ROWS;
    const int row = WARPS == 1 ? lane : threadIdx.x % ROWS;
    float extra = 0.0f, factor[HALVES];
    const auto target = [&] { return WARPS == 1 ? n : n - warp / WARPS + static_cast<int>(threadIdx.x) / ROWS; };
    const auto expect = [&] {
        if (residual && ends && row < rows && target() < outputs) extra = to_float(residual[row * residual_stride + target()]);
        if constexpr (SCALED == 1)
#pragma unroll
            for (int half = 0; half < HALVES; ++half)
                if (ends && target() < outputs) factor[half] = factors[target() + half * outputs_];
    };

    float sums[HALVES][ROWS] = {};
    int parity = 0;
    const auto end_row = [&] {
        float total[HALVES] = {};
#pragma unroll
        for (int half = 0; half < HALVES; ++half)
#pragma unroll
            for (int m = 0; m < ROWS; ++m) {
                const float sum = warp_sum(sums[half][m]);
                sums[half][m] = 0.0f;
                if constexpr (WARPS == 1) {
                    if (lane == m) total[half] = sum;
                } else {
                    if (lane == 0) partial[parity][warp][half][m] = sum;
                }
            }
        if constexpr (WARPS > 1) {
            __syncthreads();
            if (ends) {
#pragma unroll
                for (int half = 0; half < HALVES; ++half)
#pragma unroll
                    for (int i = 0; i < WARPS; ++i)
                        total[half] += partial[parity][threadIdx.x / ROWS * WARPS + i][half][row];
            }
            parity ^= 1;
        }
        if (!ends || row >= rows || target() >= outputs) return;
        if constexpr (SCALED == 1)
#pragma unroll
            for (int half = 0; half < HALVES; ++half) total[half] *= factor[half];
        float y = total[0];
        if constexpr (GATED) {
            y = activate(rounded<X>(y), 3) * rounded<X>(total[HALVES - 1]);
        } else {
            if (bias) y += to_float(bias[target()]);
            y = activate(y, static_cast<int>(activation));
            if (scale) y *= to_float(scale[target()]);
            y += extra;
        }
        out[row * outputs_ + target()] = Rounded<X>::of(y);
    };

    const auto take = [&](Chunk& chunk) {
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            const int column = at + begin + i * STRIDE;
            if (column < inputs) {
                float weights[HALVES][STEP];
#pragma unroll
                for (int half = 0; half < HALVES; ++half) unpack(weights[half], chunk.at[half][i]);
#pragma unroll
                for (int m = 0; m < ROWS; ++m) {
                    float values[STEP];
                    read(values, x + (m < rows ? m : 0) * x_stride + column);  // in shared memory after a norm
#pragma unroll
                    for (int half = 0; half < HALVES; ++half) {
                        float sum = SCALED == 2 ? 0.0f : sums[half][m];
#pragma unroll
                        for (int e = 0; e < STEP; ++e) sum = fmaf(values[e], weights[half][e], sum);
                        if constexpr (SCALED == 2) sum = fmaf(sum, chunk.factor[half][i], sums[half][m]);
                        sums[half][m] = sum;
                    }
                }
            }
        }
        fetch(chunk);
        at += AHEAD * STRIDE;
        if (at >= inputs) {
            end_row();
            at = 0, n += step;
            expect();
        }
    };

    Chunk first, second;
    fetch(first);
    fetch(second);
    if constexpr (NORM != 0)
        if (threadIdx.x * 64 < inputs) prefetch(gain + threadIdx.x * 64);
    wait_for_previous();
    expect();
    if constexpr (NORM != 0) {
        X* const rows_here = reinterpret_cast<X*>(shared);
        normalise_rows<THREADS>(rows_here, normed, x, x_stride, gain, shift, static_cast<int>(rows), inputs,
                                static_cast<float>(eps));
        x = rows_here, x_stride = width;
    }
    while (n - warp / WARPS < outputs) {  // the same for all warps of a block
        take(first);
        if (n - warp / WARPS >= outputs) break;
        take(second);
    }
}
