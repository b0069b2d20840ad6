// What kernels say on a card, in CUDA C++ and in assembly, as functions of a CPU: see CALLS in translate.py. Copies in the
// background end as late as they may, or some time later in any order.
#pragma once
#include "device.h"

#define __device__
#define __forceinline__ inline
#define __global__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define blockDim emulator::block_size
#define gridDim emulator::grid_size

struct alignas(8) int2 {
    int x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline int2 make_int2(int x, int y) { return {x, y}; }
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

// Numbers

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
inline void larger_or_nan(float& to, float a, float b) { to = a != a || b != b ? NAN : fmaxf(a, b); }

// E4M3: three bits of mantissa, exponents from -6, no infinity; what is too large becomes 448.
inline float from_e4m3(unsigned code) {
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    const float size = (code & 127) == 127 ? NAN : exponent ? ldexpf(8 + mantissa, exponent - 10) : ldexpf(mantissa, -9);
    return code & 128 ? -size : size;
}
inline unsigned to_e4m3(float x) {
    const unsigned sign = std::signbit(x) ? 128 : 0;
    if (x != x) return 127;
    const float size = fminf(fabsf(x), 448.0f);
    const int exponent = size < 0x1p-6f ? -6 : ilogbf(size);
    const float eighths = nearbyintf(ldexpf(size, 3 - exponent));  // to even, as the instruction rounds
    return sign | static_cast<unsigned>(eighths + (exponent + 6) * 8);
}
template <class From> void widen_two_e4m3(unsigned& to, From codes) {
    to = to_f16(from_e4m3(codes >> 8 & 255)) << 16 | to_f16(from_e4m3(codes & 255));
}
template <class To> void round_two_e4m3(To& to, float high, float low) {
    to = static_cast<To>(to_e4m3(high) << 8 | to_e4m3(low));
}

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

// The product of a warp: mma.m16n8k16, whose operands lie among the lanes as PTX says.
template <bool BF16>
void multiply_matrices(float& s0, float& s1, float& s2, float& s3, unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                       unsigned b0, unsigned b1) {
    const auto& lanes = block->operands[turn_of_warp()][warp()];
    const unsigned mine[6] = {a0, a1, a2, a3, b0, b1};
    for (int i = 0; i < 12; ++i) {
        const unsigned bits = i % 2 ? mine[i / 2] >> 16 : mine[i / 2] & 0xffff;
        block->operands[turn_of_warp()][warp()][lane()][i] = BF16 ? from_bf16(bits) : from_f16(bits);
    }
    meet_warp();
    float* const sums[4] = {&s0, &s1, &s2, &s3};
    for (int c = 0; c < 4; ++c) {
        const int row = lane() / 4 + c / 2 * 8, column = lane() % 4 * 2 + c % 2;
        for (int k = 0; k < 16; ++k)
            *sums[c] += lanes[row % 8 * 4 + k % 8 / 2][2 * ((row >= 8) + 2 * (k >= 8)) + k % 2] *
                        lanes[column * 4 + k % 8 / 2][2 * (4 + (k >= 8)) + k % 2];
    }
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

// Barriers in shared memory, and copies in bulk that they count

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
// Copies of 16 bytes that a thread waits for itself (cp.async)

inline void copy_later(unsigned to, const void* from, int bytes) {
    check_alignment(block->shared + to, 16), check_alignment(from, 16);
    if (to + 16 > block->size) complain("a copy leaves shared memory");
    block->fibers[block->current]->copies.back().push_back({block->shared + to, from, bytes > 0});
}
inline void close_copies() { block->fibers[block->current]->copies.emplace_back(); }
inline void wait_for_copies(int left) {  // for all but as many of the closed groups
    auto& groups = block->fibers[block->current]->copies;
    while (static_cast<int>(groups.size()) - 1 > left) {
        for (const SmallCopy& copy : groups.front()) {
            memset(copy.to, 0, 16);
            if (copy.there) memcpy(copy.to, copy.from, 16);
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
inline void load_four(unsigned& a, unsigned& b, unsigned& c, unsigned& d, const void* from) {
    load_words(static_cast<const unsigned*>(from), a, b, c, d);
}
inline unsigned load_now(const unsigned* from) { return std::atomic_ref<const unsigned>(*from).load(); }
inline unsigned look_again(const unsigned* from) {
    yield("another block");
    return load_now(from);
}
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
