// What every kernel shares: types, conversions, 16-byte loads, sums over a warp, activations.
// NVRTC is given no header of the toolkit, so that none has to be installed and nothing but this is compiled.
#pragma once

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

// As many numbers as 16 bytes hold.
template <class T> struct alignas(16) Pack {
    static constexpr int SIZE = 16 / sizeof(T);
    T at[SIZE];
};

template <class T> DEVICE Pack<T> load_pack(const T* from) {
    union {
        uint4 bytes;
        Pack<T> pack;
    } both = {*reinterpret_cast<const uint4*>(from)};
    return both.pack;
}

// Of memory that this kernel reads once: it need not stay in the first cache.
template <class T> DEVICE Pack<T> stream_pack(const T* from) {
    union Both {
        uint4 bytes;
        Pack<T> pack;
        DEVICE Both() {}
    } both;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(both.bytes.x), "=r"(both.bytes.y), "=r"(both.bytes.z), "=r"(both.bytes.w)
                 : "l"(from));
    return both.pack;
}

template <class T> DEVICE void store_pack(T* to, const Pack<T>& from) {
    *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(&from);
}

// N neighbours, which begin at a multiple of 16 bytes if N is more than 1.
template <int N, class T> DEVICE void read(float (&to)[N], const T* from) {
    if constexpr (N % Pack<T>::SIZE == 0) {
#pragma unroll
        for (int part = 0; part < N; part += Pack<T>::SIZE) {
            const Pack<T> pack = load_pack(from + part);
#pragma unroll
            for (int i = 0; i < Pack<T>::SIZE; ++i) to[part + i] = to_float(pack.at[i]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = to_float(from[i]);
    }
}
template <int N, class T> DEVICE void write(T* to, const float (&from)[N]) {
    if constexpr (N % Pack<T>::SIZE == 0) {
#pragma unroll
        for (int part = 0; part < N; part += Pack<T>::SIZE) {
            Pack<T> pack;
#pragma unroll
            for (int i = 0; i < Pack<T>::SIZE; ++i) pack.at[i] = Rounded<T>::of(from[part + i]);
            store_pack(to + part, pack);
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = Rounded<T>::of(from[i]);
    }
}

// A number as the type holds it.
template <class T> DEVICE float rounded(float x) { return to_float(Rounded<T>::of(x)); }

// Programmatic launches (compute capability 9.0 and up; nothing elsewhere). A kernel may be put on the card while the one
// before it still runs; it must not look at anything that kernels write, or write anything, before `wait_for_previous`.
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

DEVICE float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

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
