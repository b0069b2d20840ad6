// What program.cu uses of a card, on the CPU. A block is a thread of the system, its threads are fibers that take turns
// where they would wait. Copies in bulk end some time later, in any order.
#pragma once
#include <ucontext.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#define __device__
#define __forceinline__ inline
#define __global__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __CUDA_ARCH__ 900
#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define gridDim emulator::grid_size

struct uint2 {
    unsigned x, y;
};
struct uint4 {
    unsigned x, y, z, w;
};
struct float4 {
    float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

template <class A, class B> auto min(A a, B b) {
    using C = std::common_type_t<A, B>;
    return C(a) < C(b) ? C(a) : C(b);
}
template <class A, class B> auto max(A a, B b) {
    using C = std::common_type_t<A, B>;
    return C(a) > C(b) ? C(a) : C(b);
}

namespace emulator {

constexpr int THREADS = 640, WARP = 32;

struct Index {
    unsigned x = 0, y = 0, z = 0;
};
struct Barrier {  // in shared memory
    int expected = 0, pending = 0;
    long bytes = 0;
    unsigned phase = 0;
};
struct Meeting {  // of threads
    int count = 0;
    unsigned generation = 0;
};
struct Copy {
    void* to;
    const void* from;
    unsigned bytes, barrier;
};
struct Block {
    int index = 0, current = 0;
    unsigned char* shared = nullptr;
    size_t size = 0;
    ucontext_t main;
    std::vector<ucontext_t> contexts = std::vector<ucontext_t>(THREADS);
    std::vector<char*> stacks = std::vector<char*>(THREADS);
    std::vector<char> done = std::vector<char>(THREADS);
    std::vector<const char*> waits = std::vector<const char*>(THREADS, "its turn");
    Meeting all, consumers, warps[THREADS / WARP];
    unsigned long long lanes[THREADS];
    unsigned operands[THREADS / WARP][WARP][6];
    std::map<unsigned, Barrier> barriers;
    std::vector<Copy> copies;
    std::mt19937 random;
};

inline thread_local Block* block;
inline thread_local Index thread_index, block_index;
inline Index grid_size;
inline std::atomic<long> progress{0};
inline std::atomic<bool> stuck{false};

[[noreturn]] inline void complain(const char* what) {
    fprintf(stderr, "block %d, thread %d: %s\n", block->index, block->current, what);
    abort();
}

inline void yield(const char* waits_for) {
    Block* b = block;
    const int me = b->current;
    b->waits[me] = waits_for;
    swapcontext(&b->contexts[me], &b->main);
    thread_index.x = me;
}

inline void meet(Meeting& meeting, int count, const char* what) {
    const unsigned now = meeting.generation;
    if (++meeting.count == count) {
        meeting.count = 0;
        ++meeting.generation;
        ++progress;
        return;
    }
    while (meeting.generation == now) yield(what);
}
inline void meet_warp() { meet(block->warps[thread_index.x / WARP], WARP, "its warp"); }
inline void meet_consumers(int count) { meet(block->consumers, count, "the other consumers"); }

inline unsigned char* dynamic_shared() { return block->shared; }
inline unsigned shared_offset(const void* at) {
    const long offset = static_cast<const unsigned char*>(at) - block->shared;
    if (offset < 0 || static_cast<size_t>(offset) >= block->size) complain("an address is not in shared memory");
    return static_cast<unsigned>(offset);
}

inline Barrier& barrier_at(unsigned at) {
    const auto found = block->barriers.find(at);
    if (found == block->barriers.end()) complain("there is no barrier");
    return found->second;
}
inline void settle(Barrier& barrier) {
    ++progress;
    if (barrier.pending == 0 && barrier.bytes == 0) {
        barrier.pending = barrier.expected;
        ++barrier.phase;
    }
}
inline void barrier_begins(unsigned at, unsigned arrivals) {
    Barrier barrier;
    barrier.expected = barrier.pending = static_cast<int>(arrivals);
    block->barriers[at] = barrier;
}
inline void arrive_expecting(unsigned at, unsigned bytes) {
    Barrier& barrier = barrier_at(at);
    barrier.bytes += bytes;
    if (--barrier.pending < 0) complain("more arrive at a barrier than it counts");
    settle(barrier);
}
inline void arrive_alone(unsigned at) { arrive_expecting(at, 0); }
inline void wait_parity(unsigned at, unsigned parity) {
    while ((barrier_at(at).phase & 1) == parity) yield("a barrier in shared memory");
}
inline void copy_bulk(unsigned to, const void* from, unsigned bytes, unsigned barrier) {
    if (!bytes || to % 16 || reinterpret_cast<size_t>(from) % 16 || bytes % 16) complain("a copy in bulk is misaligned");
    if (to + bytes > block->size) complain("a copy in bulk leaves shared memory");
    barrier_at(barrier);
    block->copies.push_back({block->shared + to, from, bytes, barrier});
}
inline void end_some_copies() {
    auto& copies = block->copies;
    for (size_t i = 0; i < copies.size();) {
        if (block->random() % 4) {
            ++i;
            continue;
        }
        memcpy(copies[i].to, copies[i].from, copies[i].bytes);
        Barrier& barrier = barrier_at(copies[i].barrier);
        barrier.bytes -= copies[i].bytes;
        settle(barrier);
        copies[i] = copies.back();
        copies.pop_back();
    }
}

template <class To, class From> To bits_of(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline float from_f16(unsigned half) { return static_cast<float>(bits_of<_Float16>(static_cast<unsigned short>(half))); }
inline unsigned to_f16(float x) { return bits_of<unsigned short>(static_cast<_Float16>(x)); }
inline float from_bf16(unsigned half) { return bits_of<float>(half << 16); }
inline unsigned to_bf16(float x) {
    const unsigned bits = bits_of<unsigned>(x);
    return x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
template <class To, class From> void widen_f16(To& to, From from) { to = from_f16(from); }
template <class To> void round_bf16(To& to, float x) { to = static_cast<To>(to_bf16(x)); }
template <class To> void round_f16(To& to, float x) { to = static_cast<To>(to_f16(x)); }
inline void round_two_bf16(unsigned& to, float high, float low) { to = to_bf16(high) << 16 | to_bf16(low); }
inline void round_two_f16(unsigned& to, float high, float low) { to = to_f16(high) << 16 | to_f16(low); }
template <class To, class From> void widen_two_e4m3(To&, From) { complain("fp8 is not emulated"); }
inline void multiply_add_bf16(unsigned& to, unsigned a, unsigned b, unsigned c) {
    const auto half = [&](int at) {
        return to_bf16(from_bf16(a >> at & 0xffff) * from_bf16(b >> at & 0xffff) + from_bf16(c >> at & 0xffff));
    };
    to = half(16) << 16 | half(0);
}
inline void add_f16(unsigned& to, unsigned a, unsigned b) {
    to = to_f16(from_f16(a >> 16) + from_f16(b >> 16)) << 16 | to_f16(from_f16(a & 0xffff) + from_f16(b & 0xffff));
}
inline void power_of_two_of(float& to, float x) { to = exp2f(x); }

// The product of a warp: mma.m16n8k16, whose operands lie among the lanes as PTX says.
template <bool BF16>
void multiply_matrices(float& s0, float& s1, float& s2, float& s3, unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                       unsigned b0, unsigned b1) {
    const int warp = thread_index.x / WARP, lane = thread_index.x % WARP;
    auto& lanes = block->operands[warp];
    const unsigned mine[6] = {a0, a1, a2, a3, b0, b1};
    memcpy(lanes[lane], mine, sizeof mine);
    meet_warp();
    const auto half = [](unsigned word, int which) {
        const unsigned bits = which ? word >> 16 : word & 0xffff;
        return BF16 ? from_bf16(bits) : from_f16(bits);
    };
    float* const sums[4] = {&s0, &s1, &s2, &s3};
    for (int c = 0; c < 4; ++c) {
        const int row = lane / 4 + c / 2 * 8, column = lane % 4 * 2 + c % 2;
        for (int k = 0; k < 16; ++k)
            *sums[c] += half(lanes[row % 8 * 4 + k % 8 / 2][(row >= 8) + 2 * (k >= 8)], k % 2) *
                        half(lanes[column * 4 + k % 8 / 2][4 + (k >= 8)], k % 2);
    }
    meet_warp();
}

inline void load_four(unsigned& a, unsigned& b, unsigned& c, unsigned& d, const void* from) {
    unsigned words[4];
    memcpy(words, from, 16);
    a = words[0], b = words[1], c = words[2], d = words[3];
}
inline unsigned load_now(const unsigned* from) { return std::atomic_ref<const unsigned>(*from).load(); }
inline void load_one_now(unsigned& a, const unsigned* from) {
    yield("a wire");
    a = load_now(from);
}
inline void load_four_now(unsigned& a, unsigned& b, unsigned& c, unsigned& d, const unsigned* from) {
    yield("a wire");
    a = load_now(from), b = load_now(from + 1), c = load_now(from + 2), d = load_now(from + 3);
}
inline void store_one_now(unsigned* to, unsigned word) {
    std::atomic_ref<unsigned>(*to).store(word);
    ++progress;
}

template <class V> V exchange(V x, int step) {
    unsigned long long word = 0;
    memcpy(&word, &x, sizeof x);
    block->lanes[thread_index.x] = word;
    meet_warp();
    word = block->lanes[thread_index.x ^ step];
    V other;
    memcpy(&other, &word, sizeof other);
    meet_warp();
    return other;
}

inline void begin(unsigned low, unsigned high) {
    (*reinterpret_cast<std::function<void()>*>(static_cast<size_t>(high) << 32 | low))();
    Block* b = block;
    b->done[b->current] = 1;
    ++progress;
    swapcontext(&b->contexts[b->current], &b->main);
}

inline void tell_who_waits() {
    std::map<std::string, int> waiting;
    for (int i = 0; i < THREADS; ++i)
        if (!block->done[i]) ++waiting[block->waits[i]];
    for (const auto& [what, count] : waiting)
        fprintf(stderr, "block %d: %d threads wait for %s\n", block->index, count, what.c_str());
}

inline void run_block(int index, size_t size, std::function<void()> kernel) {
    constexpr size_t STACK = 1 << 16;
    constexpr int PATIENCE = 200000;  // turns without any progress in the whole grid
    Block b;
    b.index = index, b.size = size;
    b.random.seed(index);
    block = &b;
    block_index.x = index;
    std::vector<unsigned char> memory(size + 128, 0xff);  // NaN
    b.shared = memory.data() + (128 - reinterpret_cast<size_t>(memory.data()) % 128) % 128;
    std::vector<char> stacks(STACK * THREADS);
    const size_t at = reinterpret_cast<size_t>(&kernel);
    for (int i = 0; i < THREADS; ++i) {
        getcontext(&b.contexts[i]);
        b.contexts[i].uc_stack.ss_sp = stacks.data() + STACK * i;
        b.contexts[i].uc_stack.ss_size = STACK;
        b.contexts[i].uc_link = nullptr;
        makecontext(&b.contexts[i], reinterpret_cast<void (*)()>(begin), 2, static_cast<unsigned>(at),
                    static_cast<unsigned>(at >> 32));
    }
    long last = -1;
    int idle = 0;
    for (bool alive = true; alive;) {
        alive = false;
        for (int i = 0; i < THREADS; ++i) {
            if (b.done[i]) continue;
            alive = true;
            b.current = i, thread_index.x = i;
            swapcontext(&b.main, &b.contexts[i]);
        }
        end_some_copies();
        if (const long now = progress; now != last) {
            last = now, idle = 0;
        } else if (++idle > PATIENCE || stuck) {
            stuck = true;
            return tell_who_waits();
        } else {
            std::this_thread::yield();
        }
    }
    if (!b.copies.empty()) complain("the block ends before its copies do");
}

// Runs a grid. Returns whether it was stuck.
inline bool run_grid(int blocks, size_t shared, const std::function<void()>& kernel) {
    grid_size.x = blocks;
    stuck = false, progress = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < blocks; ++i) threads.emplace_back([=] { run_block(i, shared, kernel); });
    for (auto& thread : threads) thread.join();
    return stuck;
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
inline size_t __cvta_generic_to_shared(const void* at) { return emulator::shared_offset(at); }
template <class V> V __ldcg(const V* at) { return *at; }
template <class V> V __shfl_xor_sync(unsigned, V x, int step) { return emulator::exchange(x, step); }
inline void __syncthreads() { emulator::meet(emulator::block->all, emulator::THREADS, "all threads"); }
inline void __syncwarp() { emulator::meet_warp(); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline unsigned atomicInc(unsigned* at, unsigned most) {
    std::atomic_ref<unsigned> cell(*at);
    unsigned old = cell.load();
    while (!cell.compare_exchange_weak(old, old >= most ? 0 : old + 1)) {
    }
    ++emulator::progress;
    return old;
}
