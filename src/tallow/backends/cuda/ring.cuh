// A ring of places in shared memory that the card's copy engine fills: barriers that count bytes, and copies in bulk; and
// wires from block to block. Compute capability 9.0 and up.
#pragma once
#include "common.cuh"

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

// What another kernel has written is read past the first cache.
template <class V> DEVICE Pack<V> load_fresh(const V* from) { return {__ldcg(reinterpret_cast<const uint4*>(from))}; }

// A wire is how numbers of two bytes get from block to block within a launch: each is a word, whose upper half is the
// number of the launch, so that who reads it knows whether it is there (as NCCL's LL protocol does). A wire is written once
// in a launch, and launches that share it follow each other.
DEVICE void send(u32* to, u16 bits, u32 launch) {
    asm volatile("st.volatile.global.u32 [%0], %1;" ::"l"(to), "r"(launch << 16 | bits) : "memory");
}
DEVICE u16 receive(const u32* from, u32 launch) {
    u32 word;
    do {
        asm volatile("ld.volatile.global.u32 %0, [%1];" : "=r"(word) : "l"(from) : "memory");
    } while (word >> 16 != launch);
    return static_cast<u16>(word);
}
DEVICE uint2 receive_four(const u32* from, u32 launch) {
    u32 a, b, c, d;
    do {
        asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
                     : "l"(from)
                     : "memory");
    } while (a >> 16 != launch || b >> 16 != launch || c >> 16 != launch || d >> 16 != launch);
    return make_uint2(__byte_perm(a, b, 0x5410), __byte_perm(c, d, 0x5410));
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
