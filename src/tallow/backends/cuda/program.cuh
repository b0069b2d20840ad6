// What the parts of program.cu share: instructions, the threads of a block, its shared memory.
//
// T: type of activations, of dense weights and of the cache, bf16 or f16. ROWS: of activations, at most. SLOT: bytes of a
// place in the ring. HEAD: features of a head; GROUP: queries that read a key together.
#pragma once
#include "blocks.cuh"
#include "ring.cuh"

constexpr int WARPS = 16;  // that compute
constexpr int CONSUMERS = 32 * WARPS;
constexpr int THREADS = CONSUMERS + 128;  // the first of the last four warps fetches weights
constexpr int SIZE = Pack<T>::SIZE;

constexpr i64 GATED = 1, X_WIRED = 2, RESIDUAL_WIRED = 4;
constexpr i64 APPENDS = 1, INTERLEAVED = 2, WIRED = 4;

// One phase of a program. See program.py, which writes them. What a flag says is wired is the address of a wire.
struct Linear {
    i64 kind;  // 0
    T* out;
    u32* out_wire;  // null where no later phase reads the result
    const void* x;
    const u8 *codes, *high, *scales, *supers;  // a dense weight's rows are its codes
    const float* row_scales;
    const T *bias, *factor;
    const void* residual;
    const T *gain, *shift;  // of the norm that comes first
    T* normed;
    i64 outputs, inputs;      // of a gated product: of half the weight
    i64 format;               // 0: dense; 1: the first of FORMATS
    i64 activation, flags;    // GATED, X_WIRED, RESIDUAL_WIRED
    i64 unit_shift, pieces, piece;  // log2 of the rows that a warp takes at once; parts of them; bytes or tiles of one
    i64 code_bytes, high_bytes, scale_bytes, super_bytes;  // of a tile
    double eps;
};

struct Attend {
    i64 kind;  // 1
    T* out;
    u32* out_wire;
    const void *q, *k, *v;
    T *keys, *values;  // in pages
    const int* table;
    i64* lengths;
    const float *cosines, *sines;
    const T *q_gain, *k_gain;
    T* turned;  // where the queries go, as attention takes them
    float* scratch;
    u32* tickets;
    i64 batch, n, heads, kv_heads, capacity, value_width;
    i64 q_stride_b, q_stride_n, k_stride_b, v_stride_b, angle_stride;
    i64 flags, splits;  // APPENDS, INTERLEAVED, WIRED: q, k and v
    double scale, eps;
};

union Instruction {
    u64 words[32];
    Linear linear;
    Attend attend;
};
static_assert(sizeof(Instruction) == 256, "a warp reads an instruction, a word a lane");

// SIZE neighbours from an array, or from a wire as soon as they are there.
DEVICE Pack<T> arriving(const void* from, i64 at, bool wired, u32 launch) {
    if (!wired) return load_fresh(static_cast<const T*>(from) + at);
    const uint2 low = receive_four(static_cast<const u32*>(from) + at, launch);
    const uint2 high = receive_four(static_cast<const u32*>(from) + at + 4, launch);
    return {make_uint4(low.x, low.y, high.x, high.y)};
}

// One lane of a warp waits for a number of a wire before all of them look: otherwise the looking of all, again and again,
// would take up more of the way to memory than the weights do.
DEVICE void wait_for_first(const void* wire, i64 at, u32 launch) {
    if (threadIdx.x % 32 == 0) receive(static_cast<const u32*>(wire) + at, launch);
    __syncwarp();
}

// A result into its array, and onto its wire if there is one.
DEVICE void leave(T* out, u32* wire, i64 at, float y, u32 launch) {
    const T number = Rounded<T>::of(y);
    if (wire) send(wire + at, number.bits, launch);
    out[at] = number;
}

DEVICE void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory"); }

// The sum over the consumers of one group of warps, the same in each of them. `parts` are one float a warp.
DEVICE float sum_of_warps(float x, float* parts, int first, int count) {
    x = warp_sum(x);
    sync_consumers();  // the sums of the call before have been read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    sync_consumers();
    x = 0.0f;
    for (int i = 0; i < count; ++i) x += parts[first + i];
    return x;
}
