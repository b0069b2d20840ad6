// The affine map for a few rows: out[m, n] = activation(x[m] · w[n] + bias[n]) * scale[n] + residual[m, n].
// It is bound by reading w, so each row of w is read once, by WARPS warps of one block, for all ROWS rows of x. Blocks stay
// on the card and take row after row. The next DEPTH chunks of w are always on their way into shared memory, the first ones
// before the kernel before this one has ended, or even the one before that: a multiprocessor has room for blocks of three,
// and memory is read while results are waited for. GATED: w has a row n of gates and a row outputs + n; the result is
// activation(x[m] · gate) * (x[m] · other). X: type of x, residual and result; Y: of w; W: of bias and scale. Rows of w are a
// multiple of 16 bytes long.
// SCALED: w's numbers have factors, 1: for each row; 2: for each row (or 1 << factor_shift rows) and 128 columns.
// NORM: how the rows of x are normalised first; see normed.cuh.
#include "normed.cuh"

namespace {

constexpr int THREADS = 256;
constexpr int OUTPUTS = THREADS / 32 / WARPS;  // of one block at a time
constexpr int HALVES = GATED ? 2 : 1;          // rows of w that make a result
constexpr int STEP = Pack<Y>::SIZE;
constexpr int STRIDE = WARPS * 32 * STEP;
constexpr int EACH = 4 / HALVES;           // vectors of a chunk, in each thread and half
constexpr int BLOCKS = ROWS <= 2 ? 4 : 1;        // of a multiprocessor

// A chunk of w: a thread reads what it has asked for itself.
struct Chunk {
    uint4 at[HALVES][EACH][THREADS];
};
struct Factors {
    float at[HALVES][EACH][THREADS];
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

    Chunk* const chunks = reinterpret_cast<Chunk*>(shared);
    Factors* const chunk_factors = reinterpret_cast<Factors*>(chunks + DEPTH);
    X* const rows_here = reinterpret_cast<X*>(chunk_factors + (SCALED == 2 ? DEPTH : 0));
    if constexpr (NORM != 0) expect_parameters<THREADS>(rows_here, gain, shift, static_cast<int>(rows), inputs);

    const auto fetch = [&](int slot) {
        if (late_n < outputs) {
#pragma unroll
            for (int half = 0; half < HALVES; ++half)
#pragma unroll
                for (int i = 0; i < EACH; ++i) {
                    const int column = late_at + begin + i * STRIDE;
                    const int of = late_n + half * outputs;
                    if (column < inputs) {
                        copy_early(&chunks[slot].at[half][i][threadIdx.x], w + of * width + column);
                        if constexpr (SCALED == 2)
                            copy_word(&chunk_factors[slot].at[half][i][threadIdx.x],
                                      factors + (of >> band) * stride + column / 128);
                    }
                }
        }
        copies_end();
        late_at += EACH * STRIDE;
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
            y = activate(rounded<X>(y), static_cast<int>(activation)) * rounded<X>(total[HALVES - 1]);
        } else {
            if (bias) y += to_float(bias[target()]);
            y = activate(y, static_cast<int>(activation));
            if (scale) y *= to_float(scale[target()]);
            y += extra;
        }
        out[row * outputs_ + target()] = Rounded<X>::of(y);
    };

    const auto take = [&](int slot) {
        wait_for_copies<DEPTH - 1>();
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int column = at + begin + i * STRIDE;
            if (column < inputs) {
                float weights[HALVES][STEP];
#pragma unroll
                for (int half = 0; half < HALVES; ++half)
                    unpack(weights[half], Pack<Y>{chunks[slot].at[half][i][threadIdx.x]});
#pragma unroll
                for (int m = 0; m < ROWS; ++m) {
                    float values[STEP];
                    read(values, x + (m < rows ? m : 0) * x_stride + column);  // in shared memory after a norm
#pragma unroll
                    for (int half = 0; half < HALVES; ++half) {
                        float sum = SCALED == 2 ? 0.0f : sums[half][m];
#pragma unroll
                        for (int e = 0; e < STEP; ++e) sum = fmaf(values[e], weights[half][e], sum);
                        if constexpr (SCALED == 2)
                            sum = fmaf(sum, chunk_factors[slot].at[half][i][threadIdx.x], sums[half][m]);
                        sums[half][m] = sum;
                    }
                }
            }
        }
        fetch(slot);
        at += EACH * STRIDE;
        if (at >= inputs) {
            end_row();
            at = 0, n += step;
            expect();
        }
    };

#pragma unroll
    for (int slot = 0; slot < DEPTH; ++slot) fetch(slot);
    wait_for_previous();
    expect();
    if constexpr (NORM != 0) {
        normalise_rows<THREADS, DEPTH>(rows_here, normed, x, x_stride, static_cast<int>(rows), inputs, static_cast<float>(eps));
        x = rows_here, x_stride = width;
    }
    for (int slot = 0; n - warp / WARPS < outputs; slot = slot + 1 < DEPTH ? slot + 1 : 0)  // the same for all of a block
        take(slot);
}
