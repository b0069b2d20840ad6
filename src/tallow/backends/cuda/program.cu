// A decoder's step, or any stretch of operations on a few rows, as one kernel that stays on the card: a block for each
// multiprocessor goes through the phases of a program, and results go from block to block over wires. Weights don't depend
// on what came before, so a warp of each block fetches those of later phases into a ring in shared memory while the others
// wait, attend and add up: memory is read without a pause. See program.cuh for what is left open.
#if __CUDA_ARCH__ < 900
extern "C" __global__ void program() {}  // nobody launches it
#else
#include "program_attend.cuh"
#include "program_linear.cuh"

namespace {

// Asks for what a phase reads besides its ring and that phases before don't write.
DEVICE void expect(const Instruction& next, int phase) {
    if (next.words[0] != 0) return expect_keys(next.attend, phase);
    const Linear& in = next.linear;
    const Share share(in, rotation_of(phase));
    const int height = in.format ? TILE_HEIGHT : 1, own = share.own * height, at = threadIdx.x * (128 / sizeof(T));
    if (at < in.inputs && in.gain) prefetch(in.gain + at);
    if (at < in.inputs && in.shift) prefetch(in.shift + at);
    if (at < own && in.bias) prefetch(in.bias + share.first * height + at);
    if (at < own && in.factor) prefetch(in.factor + share.first * height + at);
}

// The warp that fetches, through the whole program.
DEVICE void fetch_all(const Instruction* list, i64 count, Ring& ring, Instruction& in) {
    const int lane = threadIdx.x % 32;
    u64 word = list[0].words[lane];
    for (int phase = 0; phase < count; ++phase) {
        in.words[lane] = word;
        __syncwarp();
        if (phase + 1 < count) word = list[phase + 1].words[lane];
        if (in.words[0] == 0) fetch_weights(in.linear, phase, ring);
        __syncwarp();
    }
}

// All others. Nothing but wires keeps phases apart: whoever reads a result waits for it.
DEVICE void run_all(const Instruction* list, i64 count, u32* counters, int rows, Ring& ring, u8* work, i64 partial_at,
                    Instruction (&instructions)[2], float* parts) {
    const int thread = threadIdx.x;
    const u32 launch = (counters[0] + 1) & 0xffff;
    for (int phase = 0; phase < count; ++phase) {
        const Instruction& in = instructions[phase % 2];
        const bool more = phase + 1 < count;
        u64 word = 0;
        if (thread < 32 && more) word = list[phase + 1].words[thread];
        if (in.words[0] == 0)
            run_linear(in.linear, phase, ring, work, partial_at, parts, rows, launch);
        else
            run_attend(in.attend, phase, reinterpret_cast<float*>(work), launch);
        if (thread < 32) instructions[(phase + 1) % 2].words[thread] = word;
        sync_consumers();
        if (more) expect(instructions[(phase + 1) % 2], phase + 1);
    }
    // The last block to end counts the launch, and moves the lengths of caches, which all have read by now.
    __threadfence();
    sync_consumers();
    u32* const last = reinterpret_cast<u32*>(parts);
    if (thread == 0) *last = atomicInc(counters + 1, gridDim.x - 1) == gridDim.x - 1;
    sync_consumers();
    if (!*last) return;
    if (thread == 0) counters[0] = launch;
    for (i64 phase = thread; phase < count; phase += CONSUMERS) {
        const Attend& in = list[phase].attend;
        if (in.kind == 1 && in.flags & APPENDS)
            for (int row = 0; row < in.batch; ++row) ++in.lengths[row];
    }
}

}  // namespace

// `counters`: how many launches there have been (the lower 16 bits), and one that is zero between them. The grid's blocks must all be on the card at once.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    program(const Instruction* list, i64 count, u32* counters, i64 rows, i64 slots, i64 work_bytes, i64 partial_at) {
    extern __shared__ __align__(128) u8 shared[];
    __shared__ Instruction instructions[3];  // two in turn for those that compute, one for the warp that fetches
    __shared__ float parts[WARPS];
    u8* const work = shared + slots * SLOT;
    u64* const barriers = reinterpret_cast<u64*>(work + work_bytes);
    Ring ring = {shared, barriers, barriers + slots, static_cast<u32>(slots), 0};
    const int thread = threadIdx.x;
    if (thread < slots) barrier_init(ring.full + thread, 1), barrier_init(ring.empty + thread, 1);
    if (thread < 32) instructions[0].words[thread] = list[0].words[thread];
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    __syncthreads();
    if (thread >= CONSUMERS) {
        limit_registers<false, 56>();
        if (thread < CONSUMERS + 32) fetch_all(list, count, ring, instructions[2]);
    } else {
        limit_registers<true, 104>();
        run_all(list, count, counters, static_cast<int>(rows), ring, work, partial_at,
                reinterpret_cast<Instruction(&)[2]>(instructions), parts);
    }
}
#endif
