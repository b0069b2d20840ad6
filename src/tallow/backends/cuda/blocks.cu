// The affine map on quantised weights, and their rows widened. See blocks.cuh for the arithmetic.
//
// X: type of x, residual and result; W: of bias and factor. FORMAT: the type of weight.
// ROWS: of x at most, 4, 8 or 16; TILES: tiles, one below the other, of a warp; WARPS: that share a stack of them; AT_ONCE:
// blocks of a multiprocessor. GATED: the weight's upper half is gates, the lower what they let through, and a warp's two tiles
// are one of each. NORM: how the rows of x are normalised first; see normed.cuh.
#include "blocks.cuh"
#include "normed.cuh"

namespace {

typedef FORMAT Format;
typedef Format::Tile Tile;
constexpr int GROUPS = (ROWS + 7) / 8;        // eights of columns of a product, which rows of x are
constexpr int APART = ROWS <= 4 ? 2 : 1;      // from one to the next: a lane has two results side by side, one of which is enough
constexpr int SLOTS = WARPS < 4 ? 4 / WARPS : 1;  // stacks of tiles of one block
constexpr int THREADS = SLOTS * WARPS * 32;

// What a warp fetches at once.
struct Stage {
    Tile tiles[TILES];
    Operand<X> x[GROUPS];
};

constexpr int SHARE = TILES * GROUPS * (sizeof(X) == 4 ? 2 : 1);
constexpr int AHEAD = SHARE < 2 ? 2 / SHARE : 1;  // stages under way in each warp
constexpr int RESULTS = GATED ? 1 : TILES;        // tiles of results of a warp
static_assert(!GATED || TILES == 2, "a tile of gates, and one of what they let through");

}  // namespace

// out[m, n] = activation(x[m] · w[n] + bias[n]) * factor[n] + residual[m, n], for at most ROWS rows of x, which begin
// at multiples of 16 bytes and are as long as `across` tiles; w has `down` rows of tiles, or twice as many. Blocks stay on the
// card and take stack after stack, for which a norm is made once.
extern "C" __global__ void __launch_bounds__(THREADS, AT_ONCE)
    multiply_blocks(X* out, const X* x, const u32* codes, const u32* high, const u32* scales, const u32* supers,
                    const W* bias, const W* factor, const X* residual, i64 rows_, i64 outputs, i64 down_, i64 across,
                    i64 x_stride, i64 residual_stride, i64 activation, const X* gain, const X* shift, X* normed,
                    double eps) {
    next_may_start();
    extern __shared__ __align__(16) unsigned char shared[];
    __shared__ float partial[SLOTS * WARPS][ROWS][TILES * TILE_HEIGHT];
    const Planes planes = {codes, high, scales, supers};
    const int rows = static_cast<int>(rows_), down = static_cast<int>(down_), count = static_cast<int>(across);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, step = gridDim.x * SLOTS * RESULTS;
    Planes tiles_of[TILES];
    const X* rows_of[GROUPS];
    Stage stages[AHEAD];
    int at;  // of the stage at hand, as are the planes and the rows of x
    const auto fetch_tiles = [&](Stage& stage, int behind) {
        if (at + behind >= count) return;
#pragma unroll
        for (int t = 0; t < TILES; ++t) Format::load(stage.tiles[t], tiles_of[t], behind, at + behind);
    };
    const auto fetch_x = [&](Stage& stage, int behind) {
        if (at + behind >= count) return;
#pragma unroll
        for (int group = 0; group < GROUPS; ++group) {
            const int column = group * 8 + lane / 4;
            stage.x[group].load(rows_of[group] + behind * TILE_WIDTH, column % APART == 0 && column / APART < rows);
        }
    };
    const auto begin = [&](int of_block) {
        const int first = of_block + warp / WARPS * RESULTS;
        at = first < down ? warp % WARPS : count;
#pragma unroll
        for (int t = 0; t < TILES; ++t) {
            const int row = GATED ? first + t * down : first + t < down ? first + t : first;
            tiles_of[t] = Format::from(planes, row * across, lane);
            Format::move(tiles_of[t], at);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) fetch_tiles(stages[i], i * WARPS);
    };
    const auto end = [&](int of_block) {
        constexpr int HEIGHT = RESULTS * TILE_HEIGHT;  // rows of results of a slot
        for (int i = threadIdx.x; i < SLOTS * HEIGHT * rows; i += THREADS) {
            const int n = i % HEIGHT, slot = i / HEIGHT % SLOTS, m = i / HEIGHT / SLOTS;
            const i64 target = static_cast<i64>(of_block + slot * RESULTS) * TILE_HEIGHT + n;
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
                out[m * outputs + target] = Rounded<X>::of(activate(rounded<X>(y), static_cast<int>(activation)) * through);
                continue;
            }
            if (bias) y += to_float(bias[target]);
            y = activate(y, static_cast<int>(activation));
            if (factor) y *= to_float(factor[target]);
            if (residual) y += to_float(residual[m * residual_stride + target]);
            out[m * outputs + target] = Rounded<X>::of(y);
        }
    };

    int of_block = blockIdx.x * SLOTS * RESULTS;  // the first row of tiles of its stacks
    begin(of_block);
    X* const rows_here = reinterpret_cast<X*>(shared);
    const int width = count * TILE_WIDTH;
    if constexpr (NORM != 0) expect_parameters<THREADS>(rows_here, gain, shift, rows, width);
    wait_for_previous();
    if constexpr (NORM != 0) {
        normalise_rows<THREADS, 0>(rows_here, normed, x, x_stride, rows, width, static_cast<float>(eps));
        x = rows_here, x_stride = width;
    }
    while (true) {
#pragma unroll
        for (int group = 0; group < GROUPS; ++group)
            rows_of[group] = x + (group * 8 + lane / 4) / APART * x_stride + at * TILE_WIDTH + lane % 4 * 4;
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) fetch_x(stages[i], i * WARPS);
        float sums[TILES][GROUPS][4] = {};
        for (; at < count; at += AHEAD * WARPS) {
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) {
                if (at + i * WARPS >= count) break;
                Format::multiply<APART>(sums, stages[i].tiles, stages[i].x);
                fetch_tiles(stages[i], (i + AHEAD) * WARPS);
                fetch_x(stages[i], (i + AHEAD) * WARPS);
            }
#pragma unroll
            for (int t = 0; t < TILES; ++t) Format::move(tiles_of[t], AHEAD * WARPS);
#pragma unroll
            for (int group = 0; group < GROUPS; ++group) rows_of[group] += AHEAD * WARPS * TILE_WIDTH;
        }
#pragma unroll
        for (int t = 0; t < TILES; ++t)
#pragma unroll
            for (int group = 0; group < GROUPS; ++group)
#pragma unroll
                for (int c = 0; c < 4; c += APART) {
                    const int m = (group * 8 + lane % 4 * 2 + c % 2) / APART;
                    partial[warp][m][t * TILE_HEIGHT + lane / 4 + c / 2 * 8] = sums[t][group][c];
                }
        __syncthreads();
        if (of_block + step < down) begin(of_block + step);
        end(of_block);
        of_block += step;
        if (of_block >= down) break;  // the same for all of a block
        __syncthreads();
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
    const int lane = row % 8 * 4 + threadIdx.x % 4;
    const Planes tiles = Format::from({codes, high, scales, supers}, row / TILE_HEIGHT * across, lane);
    for (int at = threadIdx.x / 4; at < across; at += blockDim.x / 4) {
        Tile tile;
        Format::load(tile, tiles, at, at);
        const i64 column = static_cast<i64>(at) * TILE_WIDTH + threadIdx.x % 4 * 4;
        if (row / 8 % 2)
            write<1>(out, tile, row_scale, column, columns);
        else
            write<0>(out, tile, row_scale, column, columns);
    }
}
