// What kernels say on a card, in CUDA C++ and in assembly, as functions of a CPU: see CALLS in translate.py. Copies in the
// background end as late as they may.
#pragma once
#include "products.h"

#define __device__
#define __forceinline__ inline
#define __global__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(n) alignas(n)
#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define blockDim emulator::block_size
#define gridDim emulator::grid_size

namespace emulator {

// What lanes of a warp do together

template <class V> V of_lane(V x, int from) {
    const int turn = turn_of_warp(), first = warp() * WARP;
    unsigned long long word = 0;
    memcpy(&word, &x, sizeof x);
    block->lanes[turn][first + lane()] = word;
    meet_warp();
    memcpy(&x, &block->lanes[turn][first + from], sizeof x);
    return x;
}
template <class V, class F> V fold_lanes(V x, F fold) {
    for (int step = 1; step < WARP; step *= 2) x = fold(x, of_lane(x, lane() ^ step));
    return x;
}

// Four matrices of 8 by 8 halves, whose rows begin where lanes 0 to 7, 8 to 15, … say (ldmatrix).
template <bool TRANSPOSED> void load_matrices(unsigned& a, unsigned& b, unsigned& c, unsigned& d, unsigned at) {
    check_alignment(block->shared + at, 16);
    unsigned* const to[4] = {&a, &b, &c, &d};
    const int turn = turn_of_warp(), first = warp() * WARP;
    block->lanes[turn][first + lane()] = at;
    meet_warp();
    for (int matrix = 0; matrix < 4; ++matrix) {
        unsigned short halves[2];
        for (int i = 0; i < 2; ++i) {
            const int beside = lane() % 4 * 2 + i, row = TRANSPOSED ? beside : lane() / 4, column = TRANSPOSED ? lane() / 4 : beside;
            const size_t from = block->lanes[turn][first + matrix * 8 + row] + 2 * column;
            if (from + 2 > block->size) complain("a matrix leaves shared memory");
            memcpy(halves + i, block->shared + from, 2);
        }
        *to[matrix] = static_cast<unsigned>(halves[1]) << 16 | halves[0];
    }
}

// Copies that a thread waits for itself (cp.async)

inline void copy_later(unsigned to, const void* from, int there, int bytes = 16) {
    check_alignment(block->shared + to, bytes), check_alignment(from, bytes);
    if (to + bytes > block->size) complain("a copy leaves shared memory");
    block->fibers[block->current]->copies.back().push_back({block->shared + to, from, bytes, there > 0});
}
inline void copy_word_later(unsigned to, const void* from) { copy_later(to, from, 1, 4); }
inline void close_copies() { block->fibers[block->current]->copies.emplace_back(); }
inline void wait_for_copies(int left) {  // for all but as many of the closed groups
    auto& groups = block->fibers[block->current]->copies;
    while (static_cast<int>(groups.size()) - 1 > left) {
        for (const Copy& copy : groups.front()) {
            memset(copy.to, 0, copy.bytes);
            if (copy.there) memcpy(copy.to, copy.from, copy.bytes);
        }
        groups.erase(groups.begin());
    }
}

// Loads and stores

template <class... W> void load_words(const unsigned* from, W&... to) {
    check_alignment(from, 4 * sizeof...(to));
    ((to = *from++), ...);
}
inline void load_one(unsigned& a, const void* from) { load_words(static_cast<const unsigned*>(from), a); }
inline void load_two(unsigned& a, unsigned& b, const void* from) { load_words(static_cast<const unsigned*>(from), a, b); }
inline void load_four_shared(unsigned& a, unsigned& b, unsigned& c, unsigned& d, unsigned at) {
    if (at + 16 > block->size) complain("a load leaves shared memory");
    load_words(reinterpret_cast<const unsigned*>(block->shared + at), a, b, c, d);
}
inline void store_four_shared(unsigned at, unsigned a, unsigned b, unsigned c, unsigned d) {
    const unsigned words[4] = {a, b, c, d};
    check_alignment(block->shared + at, 16);
    if (at + 16 > block->size) complain("a store leaves shared memory");
    memcpy(block->shared + at, words, 16);
}

// Clusters: an address in the shared memory of one's blocks is its number, from 1, before 24 bits of the offset

inline void map_into_cluster(unsigned& to, unsigned at, unsigned rank) { to = (rank + 1) << 24 | at; }
template <class... V> void store_in_cluster(unsigned to, V... values) {
    const size_t rank = (to >> 24) - 1, at = to & 0xffffff;
    if (rank >= block->cluster->blocks.size()) complain("there is no such block in the cluster");
    const Block* const there = block->cluster->blocks[rank];
    if (!there) complain("a store reaches a block that has not begun, or has ended");
    if (at + sizeof...(V) * 4 > there->size) complain("a store leaves shared memory");
    check_alignment(there->shared + at, 4 * sizeof...(V));
    const std::common_type_t<V...> all[] = {values...};
    memcpy(there->shared + at, all, sizeof all);
}
inline void come_to_cluster() {
    ++block->fibers[block->current]->met;
    ++block->cluster->arrived, ++progress;
}
inline void wait_for_cluster() {
    const long all = static_cast<long>(block->cluster->blocks.size()) * block->count;
    while (block->cluster->arrived < block->fibers[block->current]->met * all) yield("its cluster");
}

inline void load_four(unsigned& a, unsigned& b, unsigned& c, unsigned& d, const void* from) {
    load_words(static_cast<const unsigned*>(from), a, b, c, d);
}
inline unsigned look_again(const unsigned* from) {
    yield("another block");
    return std::atomic_ref<const unsigned>(*from).load();
}
template <class V, class F> V change(V* at, F changed) {
    std::atomic_ref<V> cell(*at);
    V old = cell.load();
    while (!cell.compare_exchange_weak(old, changed(old))) {
    }
    ++progress;
    return old;
}

}  // namespace emulator

inline float __int_as_float(int x) { return emulator::bits_of<float>(x); }
inline float __uint_as_float(unsigned x) { return emulator::bits_of<float>(x); }
inline unsigned __float_as_uint(float x) { return emulator::bits_of<unsigned>(x); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const unsigned long long both = static_cast<unsigned long long>(b) << 32 | a;
    unsigned y = 0;
    for (int i = 0; i < 4; ++i) y |= static_cast<unsigned>(both >> ((selector >> 4 * i & 7) * 8) & 255) << 8 * i;
    return y;
}
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned long long __double2ull_rn(double x) { return static_cast<unsigned long long>(nearbyint(x)); }
inline float __fdividef(float a, float b) { return a / b; }
inline double cospi(double x) { return cos(M_PI * x); }
inline void sincospi(double x, double* sine, double* cosine) { *sine = sin(M_PI * x), *cosine = cos(M_PI * x); }
inline size_t __cvta_generic_to_shared(const void* at) { return emulator::shared_offset(at); }

template <class V> V __ldcg(const V* at) { return *at; }
template <class V> V __shfl_xor_sync(unsigned, V x, int step) { return emulator::of_lane(x, emulator::lane() ^ step); }
template <class V> V __shfl_sync(unsigned, V x, int lane) { return emulator::of_lane(x, lane); }
template <class V> V __shfl_up_sync(unsigned, V x, int step) {
    const int lane = emulator::lane();
    return emulator::of_lane(x, lane < step ? lane : lane - step);
}
template <class V> V __reduce_min_sync(unsigned, V x) {
    return emulator::fold_lanes(x, [](V a, V b) { return min(a, b); });
}
template <class V> V __reduce_max_sync(unsigned, V x) {
    return emulator::fold_lanes(x, [](V a, V b) { return max(a, b); });
}
inline void __syncthreads() { emulator::meet_all(); }
inline void __syncwarp() { emulator::meet_warp(); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

template <class V> V atomicAdd(V* at, std::type_identity_t<V> x) {
    return emulator::change(at, [=](V old) { return old + x; });
}
inline unsigned atomicMax(unsigned* at, unsigned x) {
    return emulator::change(at, [=](unsigned old) { return max(old, x); });
}
inline unsigned atomicInc(unsigned* at, unsigned most) {
    return emulator::change(at, [=](unsigned old) { return old >= most ? 0 : old + 1; });
}
