// The affine map on quantised weights, and their rows widened. See tiles.py for how the weights lie.
//
// A warp multiplies tiles of 16 rows and 64 columns by up to 8 rows of x on the tensor cores: 16 columns at a time
// (mma.m16n8k16), codes being whole numbers that both half types hold exactly, and sums being kept in float32. The sum
// over a run of columns is then multiplied by the run's scale, so nothing is rounded but these sums.
//
// X: type of x, residual and result; W: of bias and factor.
// BITS: of a code; RUN: columns that share a scale, 0 for a whole row; OFFSET: what codes are above what they mean;
// MINIMA: whether runs have a minimum; SCALES: 0 for runs with halves, 1 for bytes under halves for 256 columns, 2 for
// floats. GROUPS: eights of rows of x; TILES: tiles, one below the other, of a warp; WARPS: that share a row of tiles.
#include "common.cuh"

namespace {

constexpr int WIDTH = 64, HEIGHT = 16;
constexpr int SLOTS = WARPS < 4 ? 4 / WARPS : 1;  // stacks of tiles of one block
constexpr int THREADS = SLOTS * WARPS * 32;
constexpr int STEP = RUN == 16 ? 16 : 32;
constexpr int CODE_WORDS = BITS == 8 ? 8 : 4;
constexpr int SCALE_WORDS = RUN == 0 ? 0 : SCALES == 2 ? 8 : SCALES == 0 && MINIMA ? 4 : 2;  // of a lane's two rows

}  // namespace

// The type that codes have in a product, by the type of x. A code's low bits in BASE make the number 2^n + code.
template <class T> struct Half {
    static constexpr u32 BASE = 0x43004300, ONE = 0x3f803f80;
    typedef bf16 type;
    static DEVICE u32 add(u32 a, u32 b) {
        u32 y;
        asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(ONE), "r"(b));
        return y;
    }
    static DEVICE void multiply(float (&sums)[4], const u32 (&a)[4], u32 low, u32 high) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(low), "r"(high));
    }
};
template <> struct Half<f16> {
    static constexpr u32 BASE = 0x64006400, ONE = 0x3c003c00;
    typedef f16 type;
    static DEVICE u32 add(u32 a, u32 b) {
        u32 y;
        asm("add.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
        return y;
    }
    static DEVICE void multiply(float (&sums)[4], const u32 (&a)[4], u32 low, u32 high) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(low), "r"(high));
    }
};
typedef Half<X> Code;

namespace {

struct Planes {
    const u32 *codes, *high, *scales, *supers;
};

// What a lane has of a tile: in rows lane / 4 and lane / 4 + 8, the columns 16 i + 4 (lane % 4) + 0 to 3.
struct Tile {
    u32 codes[CODE_WORDS], high[2], scales[SCALE_WORDS ? SCALE_WORDS : 1], supers[2];
};

// Words that are read once.
template <int COUNT> DEVICE void stream(u32* to, const u32* from) {
    if constexpr (COUNT == 1) {
        asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(to[0]) : "l"(from));
    } else if constexpr (COUNT == 2) {
        asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "l"(from));
    } else {
        asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "l"(from));
        if constexpr (COUNT == 8) stream<4>(to + 4, from + 4);
    }
}

DEVICE void load(Tile& tile, const Planes& planes, i64 number, int lane) {
    stream<4>(tile.codes, planes.codes + (number * (CODE_WORDS / 4) * 32 + lane) * 4);
    if constexpr (BITS == 8) stream<4>(tile.codes + 4, planes.codes + ((number * 2 + 1) * 32 + lane) * 4);
    if constexpr (BITS == 5) stream<1>(tile.high, planes.high + number * 32 + lane);
    if constexpr (BITS == 6) stream<2>(tile.high, planes.high + (number * 32 + lane) * 2);
    if constexpr (RUN > 0) stream<SCALE_WORDS>(tile.scales, planes.scales + (number * 8 + lane / 4) * SCALE_WORDS);
    if constexpr (SCALES == 1) {
        const uint2 both = *reinterpret_cast<const uint2*>(planes.supers + (number / 4 * 8 + lane / 4) * 2);
        tile.supers[0] = both.x, tile.supers[1] = both.y;
    }
}

// The numbers that the codes of columns 16 (pair / 2) + 4 (lane % 4) + 2 (pair % 2) + 0 and 1 stand for, in the lane's
// first or second row.
DEVICE u32 numbers(const Tile& tile, int row, int pair) {
    if constexpr (BITS == 8) {  // the low seven bits less what the sign stands for
        const u32 word = tile.codes[4 * row + pair / 2] >> (pair % 2 * 8);
        return Code::add((word & 0x007f007f) | Code::BASE, (word & 0x00800080) | (Code::BASE ^ 0x80008000));
    } else {
        u32 word = (tile.codes[2 * row + pair / 4] >> (pair % 4 * 4) & 0x000f000f) | Code::BASE;
        if constexpr (BITS > 4) {
            const u32 bits = tile.high[BITS == 6 ? row : 0];
            const int at = BITS == 6 ? 2 * pair : 8 * row + pair;
            word |= (at > 4 ? bits >> (at - 4) : bits << (4 - at)) & (BITS == 6 ? 0x00300030 : 0x00100010);
        }
        return Code::add(word, (Code::BASE ^ 0x80008000) + OFFSET * 0x00010001u);
    }
}

DEVICE float low_half(u32 word) { return to_float(f16{static_cast<u16>(word)}); }
DEVICE float high_half(u32 word) { return to_float(f16{static_cast<u16>(word >> 16)}); }

// A byte of a word as 2^23 + byte.
DEVICE float above_2_23(u32 word, int which) { return __uint_as_float(__byte_perm(word, 0x4b000000, 0x7440 + which)); }

DEVICE float scale(const Tile& tile, int row, int run) {
    if constexpr (SCALES == 2) return __uint_as_float(tile.scales[4 * row + run]);
    if constexpr (SCALES == 1) {
        const float d = low_half(tile.supers[row]);
        if constexpr (MINIMA) return d * (above_2_23(tile.scales[row], 2 * run) - 8388608.0f);
        return d * (above_2_23(tile.scales[row] ^ 0x80808080, run) - 8388736.0f);  // a signed byte
    }
    if constexpr (MINIMA) return low_half(tile.scales[2 * row + run]);
    return run ? high_half(tile.scales[row]) : low_half(tile.scales[row]);
}

DEVICE float minimum(const Tile& tile, int row, int run) {
    if constexpr (SCALES == 0) return high_half(tile.scales[2 * row + run]);
    return -high_half(tile.supers[row]) * (above_2_23(tile.scales[row], 2 * run + 1) - 8388608.0f);
}

}  // namespace

// x as the second operand of products: row lane / 4 of eight, four neighbours for each 16 columns of a tile.
template <class T> struct Operand {
    u32 at[4][2];
    DEVICE void load(const T* x, bool there) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint2 four = there ? *reinterpret_cast<const uint2*>(x + 16 * i) : make_uint2(0, 0);
            at[i][0] = four.x, at[i][1] = four.y;
        }
    }
    DEVICE void multiply(float (&sums)[4], const u32 (&a)[4], int i) const { Code::multiply(sums, a, at[i][0], at[i][1]); }
};
// A float is the sum of three bfloat16, each of which is multiplied.
template <> struct Operand<float> {
    float at[4][4];
    DEVICE void load(const float* x, bool there) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float4 four = there ? *reinterpret_cast<const float4*>(x + 16 * i) : make_float4(0, 0, 0, 0);
            at[i][0] = four.x, at[i][1] = four.y, at[i][2] = four.z, at[i][3] = four.w;
        }
    }
    static DEVICE float cut(float x) { return __uint_as_float(__float_as_uint(x) & 0xffff0000); }
    DEVICE void multiply(float (&sums)[4], const u32 (&a)[4], int i) const {
        float rest[4];
        u32 parts[3][2];
#pragma unroll
        for (int j = 0; j < 4; ++j) rest[j] = at[i][j];
#pragma unroll
        for (int part = 0; part < 3; ++part) {
#pragma unroll
            for (int j = 0; j < 4; j += 2)
                parts[part][j / 2] = __byte_perm(__float_as_uint(rest[j]), __float_as_uint(rest[j + 1]), 0x7632);
#pragma unroll
            for (int j = 0; j < 4; ++j) rest[j] -= cut(rest[j]);
        }
#pragma unroll
        for (int part = 2; part >= 0; --part) Code::multiply(sums, a, parts[part][0], parts[part][1]);
    }
};

namespace {

// What a warp fetches at once.
struct Stage {
    Tile tiles[TILES];
    Operand<X> x[GROUPS];
};

DEVICE void multiply(float (&sums)[TILES][GROUPS][4], const Stage& stage) {
    constexpr u32 ONES[4] = {Code::ONE, Code::ONE, Code::ONE, Code::ONE};
#pragma unroll
    for (int run = 0; run < WIDTH / STEP; ++run) {
        float totals[GROUPS][4] = {};  // of x
        if constexpr (MINIMA) {
#pragma unroll
            for (int i = run * STEP / 16; i < (run + 1) * STEP / 16; ++i)
#pragma unroll
                for (int group = 0; group < GROUPS; ++group) stage.x[group].multiply(totals[group], ONES, i);
        }
#pragma unroll
        for (int t = 0; t < TILES; ++t) {
            const Tile& tile = stage.tiles[t];
            float parts[GROUPS][4] = {};
#pragma unroll
            for (int i = run * STEP / 16; i < (run + 1) * STEP / 16; ++i) {
                const u32 a[4] = {numbers(tile, 0, 2 * i), numbers(tile, 1, 2 * i),
                                  numbers(tile, 0, 2 * i + 1), numbers(tile, 1, 2 * i + 1)};
#pragma unroll
                for (int group = 0; group < GROUPS; ++group)
                    stage.x[group].multiply(RUN ? parts[group] : sums[t][group], a, i);
            }
            if constexpr (RUN > 0) {
#pragma unroll
                for (int row = 0; row < 2; ++row) {
                    const float factor = scale(tile, row, run);
                    const float least =
                        MINIMA ? minimum(tile, row, run) : 0.0f;
#pragma unroll
                    for (int group = 0; group < GROUPS; ++group)
#pragma unroll
                        for (int c = 2 * row; c < 2 * row + 2; ++c) {
                            sums[t][group][c] = fmaf(factor, parts[group][c], sums[t][group][c]);
                            if constexpr (MINIMA) sums[t][group][c] = fmaf(least, totals[group][c], sums[t][group][c]);
                        }
                }
            }
        }
    }
}

constexpr int SHARE = TILES * GROUPS * (sizeof(X) == 4 ? 2 : 1);
constexpr int AHEAD = SHARE < 4 ? 4 / SHARE : 1;  // stages under way in each warp

}  // namespace

// out[m, n] = activation(x[m] · w[n] + bias[n]) * factor[n] + residual[m, n], for at most 8 GROUPS rows of x. Rows of x
// begin at multiples of 16 bytes and are as long as `across` tiles; w has `down` rows of tiles.
extern "C" __global__ void __launch_bounds__(THREADS)
    multiply_blocks(X* out, const X* x, const u32* codes, const u32* high, const u32* scales, const u32* supers,
                    const W* bias, const W* factor, const X* residual, i64 rows, i64 outputs, i64 down, i64 across,
                    i64 x_stride, i64 residual_stride, i64 activation) {
    next_may_start();
    __shared__ float partial[SLOTS * WARPS][GROUPS * 8][TILES * HEIGHT];
    const Planes planes = {codes, high, scales, supers};
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, count = static_cast<int>(across);
    const i64 first = (static_cast<i64>(blockIdx.x) * SLOTS + warp / WARPS) * TILES;
    float sums[TILES][GROUPS][4] = {};
    if (first < down) {
        Stage stages[AHEAD];
        const auto fetch_tiles = [&](Stage& stage, int at) {
            if (at >= count) return;
#pragma unroll
            for (int t = 0; t < TILES; ++t)
                load(stage.tiles[t], planes, (first + t < down ? first + t : first) * across + at, lane);
        };
        const auto fetch_x = [&](Stage& stage, int at) {
            if (at >= count) return;
#pragma unroll
            for (int group = 0; group < GROUPS; ++group) {
                const i64 row = group * 8 + lane / 4;
                stage.x[group].load(x + row * x_stride + at * WIDTH + lane % 4 * 4, row < rows);
            }
        };
        int at = warp % WARPS;
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) fetch_tiles(stages[i], at + i * WARPS);
        wait_for_previous();
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) fetch_x(stages[i], at + i * WARPS);
        for (; at < count; at += AHEAD * WARPS) {
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) {
                if (at + i * WARPS >= count) break;
                multiply(sums, stages[i]);
                fetch_tiles(stages[i], at + (i + AHEAD) * WARPS);
                fetch_x(stages[i], at + (i + AHEAD) * WARPS);
            }
        }
    } else {
        wait_for_previous();
    }
#pragma unroll
    for (int t = 0; t < TILES; ++t)
#pragma unroll
        for (int group = 0; group < GROUPS; ++group)
#pragma unroll
            for (int c = 0; c < 4; ++c)
                partial[warp][group * 8 + lane % 4 * 2 + c % 2][t * HEIGHT + lane / 4 + c / 2 * 8] = sums[t][group][c];
    __syncthreads();
    for (int i = threadIdx.x; i < SLOTS * TILES * HEIGHT * rows; i += THREADS) {
        const int n = i % (TILES * HEIGHT), slot = i / (TILES * HEIGHT) % SLOTS, m = i / (TILES * HEIGHT) / SLOTS;
        const i64 target = (static_cast<i64>(blockIdx.x) * SLOTS + slot) * TILES * HEIGHT + n;
        if (target >= outputs) continue;
        float y = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; ++w) y += partial[slot * WARPS + w][m][n];
        if constexpr (RUN == 0) y *= __uint_as_float(scales[target]);
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
    typedef typename Code::type T;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float factor = RUN ? scale(tile, ROW, RUN == 16 ? i : i / 2) : row_scale;
        const float least = MINIMA ? minimum(tile, ROW, i / 2) : 0.0f;
        alignas(16) X four[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const u32 two = numbers(tile, ROW, 2 * i + j / 2);
            const float number = to_float(T{static_cast<u16>(j % 2 ? two >> 16 : two)});
            four[j] = Rounded<X>::of(MINIMA ? fmaf(factor, number, least) : factor * number);
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
    const float row_scale = RUN ? 0.0f : __uint_as_float(scales[row]);
    for (i64 at = threadIdx.x / 4; at < across; at += blockDim.x / 4) {
        Tile tile;
        load(tile, {codes, high, scales, supers}, row / HEIGHT * across + at, row % 8 * 4 + threadIdx.x % 4);
        const i64 column = at * WIDTH + threadIdx.x % 4 * 4;
        if (row / 8 % 2)
            write<1>(out, tile, row_scale, column, columns);
        else
            write<0>(out, tile, row_scale, column, columns);
    }
}
