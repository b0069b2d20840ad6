// A ring of places in shared memory that the card's copy engine fills: barriers that count bytes, copies in bulk, and a
// barrier among all blocks of a grid. Compute capability 9.0 and up.
#pragma once
#include "common.cuh"

DEVICE u32 shared_address(const void* at) { return static_cast<u32>(__cvta_generic_to_shared(at)); }

DEVICE void barrier_init(u64* barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// Arrives, and has the phase last until so many bytes have been copied.
DEVICE void arrive_and_expect(u64* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
DEVICE void arrive(u64* barrier) {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Waits for the end of the phase of this parity.
DEVICE void wait(u64* barrier, u32 parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}" ::"r"(shared_address(barrier)), "r"(parity) : "memory");
}

// Copies a multiple of 16 bytes, and counts them off the barrier when they are there.
DEVICE void copy_in_bulk(void* to, const void* from, u32 bytes, u64* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}

// What another block has written is read past the first cache.
template <class V> DEVICE Pack<V> load_fresh(const V* from) {
    return {__ldcg(reinterpret_cast<const uint4*>(from))};
}

DEVICE u32 read_acquired(const u32* at) {
    u32 value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
    return value;
}

// Registers of each thread of four warps from here on, where the architecture can: more for those that compute, taken from
// those that don't.
template <bool MORE, int COUNT> DEVICE void limit_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    if constexpr (MORE)
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
    else
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
#endif
}
