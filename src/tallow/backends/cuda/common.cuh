// What every kernel shares: types, conversions, 16-byte loads, sums over a warp, activations.
// NVRTC is given no header of the toolkit, so that none has to be installed and nothing but this is compiled.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct bf16 {
    u16 bits;
};
struct f16 {
    u16 bits;
};
struct e4m3 {  // of a sign, 4 bits of exponent, 3 of mantissa; for compute capability 8.9 and up
    unsigned char bits;
};
typedef float f32;

#define DEVICE __device__ __forceinline__

DEVICE float infinity() { return __int_as_float(0x7f800000); }
DEVICE float not_a_number() { return __int_as_float(0x7fffffff); }

DEVICE float to_float(float x) { return x; }
DEVICE float to_float(bf16 x) { return __uint_as_float(static_cast<u32>(x.bits) << 16); }
DEVICE float to_float(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

// Two numbers, the first in the low byte.
DEVICE void to_floats(float& first, float& second, u16 codes) {
    u32 halves = 0;
#if __CUDA_ARCH__ >= 890
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(codes));
#endif
    first = to_float(f16{static_cast<u16>(halves)});
    second = to_float(f16{static_cast<u16>(halves >> 16)});
}
DEVICE float to_float(e4m3 x) {
    float y, none;
    to_floats(y, none, x.bits);
    return y;
}

template <class T> struct Rounded;
template <> struct Rounded<float> {
    static DEVICE float of(float x) { return x; }
};
template <> struct Rounded<bf16> {
    static DEVICE bf16 of(float x) {
        bf16 y;
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
        return y;
    }
};
template <> struct Rounded<f16> {
    static DEVICE f16 of(float x) {
        f16 y;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
        return y;
    }
};

// Two floats rounded to the halves of a register, the first in the low one.
template <class T> DEVICE u32 packed(float low, float high);
template <> DEVICE u32 packed<bf16>(float low, float high) {
    u32 y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}
template <> DEVICE u32 packed<f16>(float low, float high) {
    u32 y;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

// As many numbers as 16 bytes hold, in the four registers that they come in.
template <class T> struct alignas(16) Pack {
    static constexpr int SIZE = 16 / sizeof(T);
    uint4 bits;
};

DEVICE void unpack(float (&to)[4], const Pack<f32>& from) {
    to[0] = __uint_as_float(from.bits.x), to[1] = __uint_as_float(from.bits.y);
    to[2] = __uint_as_float(from.bits.z), to[3] = __uint_as_float(from.bits.w);
}
DEVICE void unpack(float (&to)[8], const Pack<bf16>& from) {
    const u32 words[4] = {from.bits.x, from.bits.y, from.bits.z, from.bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        to[2 * i] = __uint_as_float(words[i] << 16);
        to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}
DEVICE void unpack(float (&to)[8], const Pack<f16>& from) {
    const u32 words[4] = {from.bits.x, from.bits.y, from.bits.z, from.bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        to[2 * i] = to_float(f16{static_cast<u16>(words[i])});
        to[2 * i + 1] = to_float(f16{static_cast<u16>(words[i] >> 16)});
    }
}
DEVICE void unpack(float (&to)[16], const Pack<e4m3>& from) {
    const u32 words[4] = {from.bits.x, from.bits.y, from.bits.z, from.bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        to_floats(to[4 * i], to[4 * i + 1], static_cast<u16>(words[i]));
        to_floats(to[4 * i + 2], to[4 * i + 3], static_cast<u16>(words[i] >> 16));
    }
}
DEVICE Pack<f32> pack(const float (&from)[4], f32) {
    return {make_uint4(__float_as_uint(from[0]), __float_as_uint(from[1]), __float_as_uint(from[2]),
                       __float_as_uint(from[3]))};
}
template <class T> DEVICE Pack<T> pack(const float (&from)[8], T) {
    return {make_uint4(packed<T>(from[0], from[1]), packed<T>(from[2], from[3]), packed<T>(from[4], from[5]),
                       packed<T>(from[6], from[7]))};
}

template <class T> DEVICE void store_pack(T* to, const Pack<T>& pack) { *reinterpret_cast<uint4*>(to) = pack.bits; }
template <class T> DEVICE Pack<T> load_pack(const T* from) { return {*reinterpret_cast<const uint4*>(from)}; }

// N neighbours, which begin at a multiple of 16 bytes if N is more than 1.
template <int N, class T> DEVICE void read(float (&to)[N], const T* from) {
    if constexpr (N % Pack<T>::SIZE == 0) {
#pragma unroll
        for (int part = 0; part < N; part += Pack<T>::SIZE)
            unpack(*reinterpret_cast<float(*)[Pack<T>::SIZE]>(to + part), load_pack(from + part));
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = to_float(from[i]);
    }
}
template <int N, class T> DEVICE void write(T* to, const float (&from)[N]) {
    if constexpr (N % Pack<T>::SIZE == 0) {
#pragma unroll
        for (int part = 0; part < N; part += Pack<T>::SIZE)
            *reinterpret_cast<uint4*>(to + part) =
                pack(*reinterpret_cast<const float(*)[Pack<T>::SIZE]>(from + part), T{}).bits;
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = Rounded<T>::of(from[i]);
    }
}

// A number as the type holds it.
template <class T> DEVICE float rounded(float x) { return to_float(Rounded<T>::of(x)); }

// The positions of a cache's row lie in pages of PAGE; `pages` are those of the row. A place is an index of (page, head,
// position in the page).
constexpr int PAGE = 64;
DEVICE i64 place_of(const int* pages, i64 position, i64 heads, i64 head) {
    return (pages[position / PAGE] * heads + head) * PAGE + position % PAGE;
}
// Of a row that can hold so many positions.
DEVICE i64 pages_for(i64 capacity) { return (capacity + PAGE - 1) / PAGE; }

// Asks for the line of 128 bytes that an address is in.
template <class T> DEVICE void prefetch(const T* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

// An address in shared memory as instructions take it.
DEVICE u32 shared_address(const void* at) { return static_cast<u32>(__cvta_generic_to_shared(at)); }

// 16 bytes from memory to shared memory in the background, zeros where `there` is false: in groups, of which each thread has
// its own. After a wait for all but the last LEFT a thread sees what it has copied itself; others do after a barrier.
template <class To, class From> DEVICE void copy_early(To* to, const From* from, bool there = true) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}
// Likewise 4 bytes.
template <class To, class From> DEVICE void copy_word(To* to, const From* from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
DEVICE void copies_end() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT> DEVICE void wait_for_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

// Programmatic launches (compute capability 9.0 and up; nothing elsewhere). A kernel may be put on the card while the one
// before it still runs; it must not look at anything that kernels of the recording write, or write anything, before
// `wait_for_previous`.
DEVICE void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
DEVICE void next_may_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

constexpr float LOG2E = 1.4426950408889634f;

DEVICE float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

DEVICE float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// Over a block of so many threads, the same in all of them. `parts`: a float for each warp.
template <int BLOCK_SIZE> DEVICE float block_sum(float x, float* parts) {
    x = warp_sum(x);
    __syncthreads();  // the sums of the call before have been read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0.0f;
#pragma unroll
    for (int i = 0; i < BLOCK_SIZE / 32; ++i) x += parts[i];
    return x;
}

// Over four neighbouring lanes, the same in all of them.
DEVICE float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Whether two types are one.
template <class A, class B> constexpr bool SAME = false;
template <class A> constexpr bool SAME<A, A> = true;

// The activations of ops.linear, by the numbers that linear.py gives them.
DEVICE float activate(float x, int name) {
    switch (name) {
    case 1: return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case 2: return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case 3: return x / (1.0f + expf(-x));
    case 4: return x > 0.0f || x != x ? x : 0.0f;
    default: return x;
    }
}
