// CUDA's types of numbers, and how they are rounded.
#pragma once
#include "device.h"

struct alignas(8) int2 {
    int x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(8) float2 {
    float x, y;
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
inline void mask_and_join(unsigned& to, unsigned bits, unsigned mask, unsigned others) { to = (bits & mask) | others; }
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

}  // namespace emulator
