// Quantised weights in the registers of the lanes that multiply them. See tiles.py for how they lie.
//
// A warp multiplies tiles of 16 rows and 64 columns by up to 8 rows of x on the tensor cores: 16 columns at a time
// (mma.m16n8k16), codes being whole numbers that both half types hold exactly, and sums being kept in float32. The sum
// over a run of columns is then multiplied by the run's scale, so nothing is rounded but these sums.
#pragma once
#include "common.cuh"

constexpr int TILE_WIDTH = 64, TILE_HEIGHT = 16;

// The type that codes have in a product, by the type of x. A code's low bits in BASE make the number RAISED + code.
template <class V> struct Half {
    static constexpr u32 BASE = 0x43004300, ONE = 0x3f803f80;
    static constexpr float RAISED = 128.0f;
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
    static constexpr float RAISED = 1024.0f;
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
template <> struct Half<float> : Half<bf16> {};

// x as the second operand of products: row lane / 4 of eight, four neighbours for each 16 columns of a tile.
template <class V> struct Operand {
    u32 at[4][2];
    DEVICE void load(const V* x, bool there) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint2 four = there ? *reinterpret_cast<const uint2*>(x + 16 * i) : make_uint2(0, 0);
            at[i][0] = four.x, at[i][1] = four.y;
        }
    }
    DEVICE void multiply(float (&sums)[4], const u32 (&a)[4], int i) const { Half<V>::multiply(sums, a, at[i][0], at[i][1]); }
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
        for (int part = 2; part >= 0; --part) Half<float>::multiply(sums, a, parts[part][0], parts[part][1]);
    }
};

// Where the planes of a matrix begin, or what a lane has of a row of tiles.
struct Planes {
    const u32 *codes, *high, *scales, *supers;
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

// bits & mask | base in one instruction. The compiler makes two, so as not to keep both constants in registers.
DEVICE u32 masked(u32 bits, u32 mask, u32 base) {
    u32 y;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(y) : "r"(bits), "r"(mask), "r"(base));
    return y;
}

DEVICE float low_half(u32 word) { return to_float(f16{static_cast<u16>(word)}); }
DEVICE float high_half(u32 word) { return to_float(f16{static_cast<u16>(word >> 16)}); }

// A byte of a word as 2^23 + byte.
DEVICE float above_2_23(u32 word, int which) { return __uint_as_float(__byte_perm(word, 0x4b000000, 0x7440 + which)); }

// A type of weight. V: the type of what it is multiplied by. BITS: of a code; RUN: columns that share a scale, 0 for a whole
// row; SCALES: 0 for runs with halves, 1 for bytes under halves for 256 columns, 2 for floats; MINIMA: whether runs have a
// minimum; OFFSET: what codes are above what they mean.
template <class V, int BITS, int RUN, int SCALES, bool MINIMA, int OFFSET> struct Blocks {
    typedef Half<V> Code;
    static constexpr bool OF_ROWS = RUN == 0;  // whether a row has one scale, which is applied to its sum
    // Whether codes are multiplied as they are raised, and what that adds is taken away with the minima. A float's last bits
    // would be lost.
    static constexpr bool AS_RAISED = MINIMA && sizeof(V) == 2;
    static constexpr int STEP = RUN == 16 ? 16 : 32;
    static constexpr int CODE_WORDS = BITS == 8 ? 8 : 4, HIGH_WORDS = BITS == 6 ? 2 : BITS == 5 ? 1 : 0;
    static constexpr int SCALE_WORDS = RUN == 0 ? 0 : SCALES == 2 ? 8 : SCALES == 0 && MINIMA ? 4 : 2;  // of two rows

    // What a lane has of a tile: in rows lane / 4 and lane / 4 + 8, the columns 16 i + 4 (lane % 4) + 0 to 3.
    struct Tile {
        u32 codes[CODE_WORDS], high[2], scales[SCALE_WORDS ? SCALE_WORDS : 1], supers[2];
    };

    // What a lane has of the tiles from a number on, the first of a row.
    static DEVICE Planes from(const Planes& planes, i64 number, int lane) {
        return {planes.codes + number * CODE_WORDS * 32 + lane * 4, planes.high + (number * 32 + lane) * HIGH_WORDS,
                planes.scales + (number * 8 + lane / 4) * SCALE_WORDS, planes.supers + (number / 4 * 8 + lane / 4) * 2};
    }

    // What it has from some tiles further on, but for the supers.
    static DEVICE void move(Planes& planes, int tiles) {
        planes.codes += tiles * CODE_WORDS * 32, planes.scales += tiles * 8 * SCALE_WORDS;
        planes.high += tiles * HIGH_WORDS * 32;
    }

    // Loads the tile that lies some behind where the planes have been moved to, `at` of its row.
    static DEVICE void load(Tile& tile, const Planes& planes, int behind, int at) {
        stream<4>(tile.codes, planes.codes + behind * (CODE_WORDS * 32));
        if constexpr (BITS == 8) stream<4>(tile.codes + 4, planes.codes + behind * (CODE_WORDS * 32) + 128);
        if constexpr (HIGH_WORDS > 0) stream<HIGH_WORDS>(tile.high, planes.high + behind * (32 * HIGH_WORDS));
        if constexpr (RUN > 0) stream<SCALE_WORDS>(tile.scales, planes.scales + behind * (8 * SCALE_WORDS));
        if constexpr (SCALES == 1) {  // which four tiles have in common
            const uint2 two = *reinterpret_cast<const uint2*>(planes.supers + at / 4 * 16);
            tile.supers[0] = two.x, tile.supers[1] = two.y;
        }
    }

    // Two codes of less than eight bits, raised.
    static DEVICE u32 raised(const Tile& tile, int row, int pair) {
        const u32 word = masked(tile.codes[2 * row + pair / 4] >> (pair % 4 * 4), 0x000f000f, Code::BASE);
        if constexpr (BITS == 4) return word;
        const u32 bits = tile.high[BITS == 6 ? row : 0];
        const int at = BITS == 6 ? 2 * pair : 8 * row + pair;
        return masked(at > 4 ? bits >> (at - 4) : bits << (4 - at), BITS == 6 ? 0x00300030 : 0x00100010, word);
    }

    // The numbers that the codes of columns 16 (pair / 2) + 4 (lane % 4) + 2 (pair % 2) + 0 and 1 stand for, in the
    // lane's first or second row.
    static DEVICE u32 numbers(const Tile& tile, int row, int pair) {
        if constexpr (BITS == 8) {  // the low seven bits less what the sign stands for
            const u32 word = tile.codes[4 * row + pair / 2] >> (pair % 2 * 8);
            return Code::add(masked(word, 0x007f007f, Code::BASE), masked(word, 0x00800080, Code::BASE ^ 0x80008000));
        } else {
            return Code::add(raised(tile, row, pair), (Code::BASE ^ 0x80008000) + OFFSET * 0x00010001u);
        }
    }

    static DEVICE float scale(const Tile& tile, int row, int run) {
        if constexpr (SCALES == 2) return __uint_as_float(tile.scales[4 * row + run]);
        if constexpr (SCALES == 1) {
            const float d = low_half(tile.supers[row]);
            if constexpr (MINIMA) return d * (above_2_23(tile.scales[row], 2 * run) - 8388608.0f);
            return d * (above_2_23(tile.scales[row] ^ 0x80808080, run) - 8388736.0f);  // a signed byte
        }
        if constexpr (MINIMA) return low_half(tile.scales[2 * row + run]);
        return run ? high_half(tile.scales[row]) : low_half(tile.scales[row]);
    }

    // The run that columns 16 i to 16 i + 15 of a tile belong to.
    static DEVICE int run_of(int i) { return RUN == 16 ? i : i / 2; }

    static DEVICE float minimum(const Tile& tile, int row, int run) {
        if constexpr (!MINIMA) return 0.0f;
        if constexpr (SCALES == 0) return high_half(tile.scales[2 * row + run]);
        return -high_half(tile.supers[row]) * (above_2_23(tile.scales[row], 2 * run + 1) - 8388608.0f);
    }

    // Adds the products of tiles, one below the other, and eights of columns, which are rows of x. With APART of 2 every other
    // column is none.
    template <int APART, int DOWN, int EIGHTS>
    static DEVICE void multiply(float (&sums)[DOWN][EIGHTS][4], const Tile (&tiles)[DOWN],
                                const Operand<V> (&x)[EIGHTS]) {
        constexpr u32 ONES[4] = {Code::ONE, Code::ONE, Code::ONE, Code::ONE};
#pragma unroll
        for (int run = 0; run < TILE_WIDTH / STEP; ++run) {
            float totals[EIGHTS][4] = {};  // of x
            if constexpr (MINIMA) {
#pragma unroll
                for (int i = run * STEP / 16; i < (run + 1) * STEP / 16; ++i)
#pragma unroll
                    for (int group = 0; group < EIGHTS; ++group) x[group].multiply(totals[group], ONES, i);
            }
#pragma unroll
            for (int t = 0; t < DOWN; ++t) {
                float parts[EIGHTS][4] = {};
#pragma unroll
                for (int i = run * STEP / 16; i < (run + 1) * STEP / 16; ++i) {
                    u32 a[4];
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        if constexpr (AS_RAISED) a[j] = raised(tiles[t], j % 2, 2 * i + j / 2);
                        else a[j] = numbers(tiles[t], j % 2, 2 * i + j / 2);
                    }
#pragma unroll
                    for (int group = 0; group < EIGHTS; ++group)
                        x[group].multiply(RUN ? parts[group] : sums[t][group], a, i);
                }
                if constexpr (RUN > 0) {
#pragma unroll
                    for (int row = 0; row < 2; ++row) {
                        const float factor = scale(tiles[t], row, run);
                        float least = minimum(tiles[t], row, run);
                        if constexpr (AS_RAISED) least = fmaf(-Code::RAISED, factor, least);
#pragma unroll
                        for (int group = 0; group < EIGHTS; ++group)
#pragma unroll
                            for (int c = 2 * row; c < 2 * row + 2; c += APART) {
                                sums[t][group][c] = fmaf(factor, parts[group][c], sums[t][group][c]);
                                if constexpr (MINIMA)
                                    sums[t][group][c] = fmaf(least, totals[group][c], sums[t][group][c]);
                            }
                    }
                }
            }
        }
    }
};
