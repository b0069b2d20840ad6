// What the kernels of attention for compute capability 9.0 share: products of a warpgroup on the tensor cores, which run in
// the background, and what is done to queries, keys and scores around them. T: bf16 or f16, of all factors. Matrices lie in
// panels of 64 columns, rows of 128 bytes in which chunk c of 16 bytes of row r is at place c ^ r % 8: the layout that wgmma
// calls 128-byte swizzle.
#pragma once
#include "common.cuh"

DEVICE int swizzled(int row, int chunk) { return row * 128 + ((chunk ^ row) % 8) * 16; }

// What this thread has written to shared memory is seen by the tensor cores of whoever meets it at a barrier.
DEVICE void show_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

DEVICE void products_may_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void products_end() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits for all but the last LEFT groups of products; c is not looked at before.
template <int LEFT, int N> DEVICE void wait_for_products(float (&c)[N]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(c[i])::"memory");
}

// The threads of a warpgroup meet at a barrier of its own, which is not 0.
DEVICE void meet_group(int number) { asm volatile("bar.sync %0, 128;" ::"r"(number) : "memory"); }

// Where a matrix begins, for wgmma. `panels`: bytes between panels, for values, whose features are columns of the product.
DEVICE u64 descriptor(u32 at, int panels) {
    constexpr u64 SWIZZLE_128 = 1ull << 62, EIGHT_ROWS = 1024 >> 4;
    return SWIZZLE_128 | EIGHT_ROWS << 32 | static_cast<u64>(panels >> 4) << 16 | (at & 0x3ffff) >> 4;
}

#define EIGHT(i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), \
                 "+f"(c[i + 6]), "+f"(c[i + 7])
#define THIRTY_TWO(i) EIGHT(i), EIGHT(i + 8), EIGHT(i + 16), EIGHT(i + 24)
#define TEN(t) ",%" #t "0,%" #t "1,%" #t "2,%" #t "3,%" #t "4,%" #t "5,%" #t "6,%" #t "7,%" #t "8,%" #t "9"
#define FIRST_30 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9" TEN(1) TEN(2)
#define WGMMA(TYPE, COLUMNS, SUMS, A, B, KEEP, TRANSPOSED, ...)                                                 \
    asm volatile("{.reg .pred keep; setp.ne.b32 keep, " KEEP ", 0;\n"                                           \
                 "wgmma.mma_async.sync.aligned.m64n" COLUMNS "k16.f32." TYPE "." TYPE " {" SUMS "}, {" A "}, " B \
                 ", keep, 1, 1, " TRANSPOSED ";}"                                                               \
                 : __VA_ARGS__                                                                                  \
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "r"(static_cast<int>(keep)), "n"(TRANSPOSED_B))
#define WGMMA_64(TYPE) \
    WGMMA(TYPE, "64", FIRST_30 ",%30,%31", "%32,%33,%34,%35", "%36", "%37", "%38", THIRTY_TWO(0))
#define WGMMA_128(TYPE)                                                                                           \
    WGMMA(TYPE, "128", FIRST_30 TEN(3) TEN(4) TEN(5) ",%60,%61,%62,%63", "%64,%65,%66,%67", "%68", "%69", "%70", \
          THIRTY_TWO(0), THIRTY_TWO(32))

// c (64, 2 N) = keep · c + a (64, 16) · b (16, 2 N), in the background.
template <int TRANSPOSED_B, int N>
DEVICE void add_product(float (&c)[N], u32 a0, u32 a1, u32 a2, u32 a3, u64 b, bool keep) {
    static_assert(N == 32 || N == 64, "a product of these columns is not written down");
    if constexpr (N == 32 && SAME<T, bf16>)
        WGMMA_64("bf16");
    else if constexpr (N == 32)
        WGMMA_64("f16");
    else if constexpr (SAME<T, bf16>)
        WGMMA_128("bf16");
    else
        WGMMA_128("f16");
}

#define WGMMA_SHARED(TYPE, COLUMNS, SUMS, A, B, KEEP, ...)                                                     \
    asm volatile("{.reg .pred keep; setp.ne.b32 keep, " KEEP ", 0;\n"                                          \
                 "wgmma.mma_async.sync.aligned.m64n" COLUMNS "k16.f32." TYPE "." TYPE " {" SUMS "}, " A ", " B \
                 ", keep, 1, 1, 0, 0;}"                                                                        \
                 : __VA_ARGS__                                                                                 \
                 : "l"(a), "l"(b), "r"(static_cast<int>(keep)))
#define WGMMA_SHARED_96(TYPE)                                                                             \
    WGMMA_SHARED(TYPE, "96", FIRST_30 TEN(3) ",%40,%41,%42,%43,%44,%45,%46,%47", "%48", "%49", "%50",    \
                 THIRTY_TWO(0), EIGHT(32), EIGHT(40))
#define WGMMA_SHARED_112(TYPE)                                                                            \
    WGMMA_SHARED(TYPE, "112", FIRST_30 TEN(3) TEN(4) ",%50,%51,%52,%53,%54,%55", "%56", "%57", "%58",    \
                 THIRTY_TWO(0), EIGHT(32), EIGHT(40), EIGHT(48))

// Likewise, a and b being in shared memory where descriptors say.
template <int N> DEVICE void add_product(float (&c)[N], u64 a, u64 b, bool keep) {
    static_assert(N == 48 || N == 56, "a product of these columns is not written down");
    if constexpr (N == 48 && SAME<T, bf16>)
        WGMMA_SHARED_96("bf16");
    else if constexpr (N == 48)
        WGMMA_SHARED_96("f16");
    else if constexpr (SAME<T, bf16>)
        WGMMA_SHARED_112("bf16");
    else
        WGMMA_SHARED_112("f16");
}

// Turns pairs by their angles, as ops.rope does.
DEVICE void rotate(float (&x)[8], float (&y)[8], const float (&cosines)[8], const float (&sines)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float u = x[i], v = y[i];
        x[i] = u * cosines[i] - v * sines[i];
        y[i] = v * cosines[i] + u * sines[i];
    }
}

// Of the scores of this thread's two queries, the FIRST-th to the COUNT-th column of a tile: keys from `visible` on get no
// weight. `first_key`: the tile's.
template <int FIRST, int COUNT, int N> DEVICE void hide(float (&scores)[N], int first_key, const int (&visible)[2]) {
    const int key = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int i = FIRST / 2; i < COUNT / 2; ++i)
        if (key + i / 4 * 8 + i % 2 >= visible[i / 2 % 2]) scores[i] = -infinity();
}

// Likewise keys that lie `window` and more before `visible`.
template <int FIRST, int COUNT, int N>
DEVICE void hide_left(float (&scores)[N], int first_key, const int (&visible)[2], int window) {
    const int key = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int i = FIRST / 2; i < COUNT / 2; ++i)
        if (key + i / 4 * 8 + i % 2 < visible[i / 2 % 2] - window) scores[i] = -infinity();
}
