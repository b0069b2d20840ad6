// The affine map on quantised weights, and their rows widened. See blocks.cuh for the arithmetic.
//
// X: type of x, residual and result; W: of bias and factor. FORMAT: the type of weight.
// GROUPS: eights of rows of x; TILES: tiles, one below the other, of a warp; WARPS: that share a row of tiles. GATED: the
// weight's upper half is gates, the lower what they let through, and a warp's two tiles are one of each. NORM: how the rows
// of x are normalised first; see normed.cuh.
#include "blocks.cuh"
#include "normed.cuh"

namespace {

typedef FORMAT Format;
typedef Format::Tile Tile;
constexpr int SLOTS = WARPS < 4 ? 4 / WARPS : 1;  // stacks of tiles of one block
constexpr int THREADS = SLOTS * WARPS * 32;

// What a warp fetches at once.
struct Stage {
    Tile tiles[TILES];
    Operand<X> x[GROUPS];
};

constexpr int SHARE = TILES * GROUPS * (sizeof(X) == 4 ? 2 : 1);
constexpr int AHEAD = SHARE < 4 ? 4 / SHARE : 1;  // stages under way in each warp
constexpr int RESULTS = GATED ? 1 : TILES;        // tiles of results of a warp
static_assert(!GATED || TILES == 2, "a tile of gates, and one of what they let through");

}  // namespace

// out[m, n] = activation(x[m] · w[n] + bias[n]) * factor[n] + residual[m, n], for at most 8 GROUPS rows of x. Rows of x
// begin at multiples of 16 bytes and are as long as `across` tiles; w has `down` rows of tiles, or twice as many.
extern "C" __global__ void __launch_bounds__(THREADS)
    multiply_blocks(X* out, const X* x, const u32* codes, const u32* high, const u32* scales, const u32* supers,
                    const W* bias, const W* factor, const X* residual, i64 rows, i64 outputs, i64 down, i64 across,
                    i64 x_stride, i64 residual_stride, i64 activation, const X* gain, const X* shift, X* normed,
                    double eps) {
    next_may_start();
    extern __shared__ __align__(16) unsigned char shared[];
    __shared__ float partial[SLOTS * WARPS][GROUPS * 8][TILES * TILE_HEIGHT];
    const Planes planes = {codes, high, scales, supers};
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, count = static_cast<int>(across);
    const i64 first = (static_cast<i64>(blockIdx.x) * SLOTS + warp / WARPS) * RESULTS;
    const i64 below = GATED ? down : 1;  // from one tile of a warp to the next
    float sums[TILES][GROUPS][4] = {};
    Stage stages[AHEAD];
    const auto fetch_tiles = [&](Stage& stage, int at) {
        if (at >= count) return;
#pragma unroll
        for (int t = 0; t < TILES; ++t) {
            const i64 tile = GATED || first + t < down ? first + t * below : first;
            Format::load(stage.tiles[t], planes, tile * across + at, lane);
        }
    };
    const auto fetch_x = [&](Stage& stage, int at) {
        if (at >= count) return;
#pragma unroll
        for (int group = 0; group < GROUPS; ++group) {
            const i64 row = group * 8 + lane / 4;
            stage.x[group].load(x + row * x_stride + at * TILE_WIDTH + lane % 4 * 4, row < rows);
        }
    };
    int at = first < down ? warp % WARPS : count;
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) fetch_tiles(stages[i], at + i * WARPS);
    X* const rows_here = reinterpret_cast<X*>(shared);
    const int height = static_cast<int>(rows), width = count * TILE_WIDTH;
    if constexpr (NORM != 0) expect_parameters<THREADS>(rows_here, gain, shift, height, width);
    wait_for_previous();
    if constexpr (NORM != 0) {
        normalise_rows<THREADS, 0>(rows_here, normed, x, x_stride, height, width, static_cast<float>(eps));
        x = rows_here, x_stride = across * TILE_WIDTH;
    }
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) fetch_x(stages[i], at + i * WARPS);
    for (; at < count; at += AHEAD * WARPS) {
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            if (at + i * WARPS >= count) break;
            Format::multiply(sums, stages[i].tiles, stages[i].x);
            fetch_tiles(stages[i], at + (i + AHEAD) * WARPS);
            fetch_x(stages[i], at + (i + AHEAD) * WARPS);
        }
    }
#pragma unroll
    for (int t = 0; t < TILES; ++t)
#pragma unroll
        for (int group = 0; group < GROUPS; ++group)
#pragma unroll
            for (int c = 0; c < 4; ++c)
                partial[warp][group * 8 + lane % 4 * 2 + c % 2][t * TILE_HEIGHT + lane / 4 + c / 2 * 8] = sums[t][group][c];
    __syncthreads();
    constexpr int HEIGHT = RESULTS * TILE_HEIGHT;  // rows of results of a slot
    for (int i = threadIdx.x; i < SLOTS * HEIGHT * rows; i += THREADS) {
        const int n = i % HEIGHT, slot = i / HEIGHT % SLOTS, m = i / HEIGHT / SLOTS;
        const i64 target = (static_cast<i64>(blockIdx.x) * SLOTS + slot) * HEIGHT + n;
        if (target >= outputs) continue;
        const auto sum_of = [&](int place, i64 row) {
            float sum = 0.0f;
#pragma unroll
            for (int w = 0; w < WARPS; ++w) sum += partial[slot * WARPS + w][m][place];
            if constexpr (Format::OF_ROWS) sum *= __uint_as_float(scales[row]);
            return sum;
        };
        float y = sum_of(n, target);
        if constexpr (GATED) {
            const float through = rounded<X>(sum_of(n + TILE_HEIGHT, target + outputs));
            out[m * outputs + target] = Rounded<X>::of(activate(rounded<X>(y), 3) * through);
            continue;
        }
        if (bias) y += to_float(bias[target]);
        y = activate(y, static_cast<int>(activation));
        if (factor) y *= to_float(factor[target]);
        if (residual) y += to_float(residual[m * residual_stride + target]);
        out[m * outputs + target] = Rounded<X>::of(y);
    }
}

namespace {

// The lane's four neighbours in each 16 columns of a tile, for one of its rows.
template <int ROW> DEVICE void write(X* out, const Tile& tile, float row_scale, i64 column, i64 columns) {
    typedef Format::Code::type T;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float factor = Format::OF_ROWS ? row_scale : Format::scale(tile, ROW, Format::run_of(i));
        const float least = Format::minimum(tile, ROW, Format::run_of(i));
        alignas(16) X four[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const u32 two = Format::numbers(tile, ROW, 2 * i + j / 2);
            const float number = to_float(T{static_cast<u16>(j % 2 ? two >> 16 : two)});
            four[j] = Rounded<X>::of(fmaf(factor, number, least));
        }
        X* to = out + column + 16 * i;
        if (columns % 4 == 0 && column + 16 * i < columns) {
            if constexpr (sizeof(X) == 2)
                *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(four);
            else
                *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(four);
        } else {
#pragma unroll
            for (int j = 0; j < 4; ++j)
                if (column + 16 * i + j < columns) to[j] = four[j];
        }
    }
}

}  // namespace

// Rows by number, or all of them where there are no numbers, one a block. A row outside the matrix is NaN.
extern "C" __global__ void widen(X* out, const i64* ids, const u32* codes, const u32* high, const u32* scales,
                                 const u32* supers, i64 outputs, i64 columns, i64 across) {
    next_may_start();
    wait_for_previous();
    const i64 row = ids ? ids[blockIdx.x] : blockIdx.x;
    out += blockIdx.x * columns;
    if (row < 0 || row >= outputs) {
        for (i64 i = threadIdx.x; i < columns; i += blockDim.x) out[i] = Rounded<X>::of(not_a_number());
        return;
    }
    const float row_scale = Format::OF_ROWS ? __uint_as_float(scales[row]) : 0.0f;
    for (i64 at = threadIdx.x / 4; at < across; at += blockDim.x / 4) {
        Tile tile;
        Format::load(tile, {codes, high, scales, supers}, row / TILE_HEIGHT * across + at, row % 8 * 4 + threadIdx.x % 4);
        const i64 column = at * TILE_WIDTH + threadIdx.x % 4 * 4;
        if (row / 8 % 2)
            write<1>(out, tile, row_scale, column, columns);
        else
            write<0>(out, tile, row_scale, column, columns);
    }
}
