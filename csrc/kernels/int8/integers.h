// I32: a vector of 32-bit integers as wide as F32, and what int8 products do with it.
#pragma once

#include "kernels/simd.h"

namespace tallow::TALLOW_LEVEL {

#if TALLOW_SIMD_AVX512

struct I32 {
    __m512i v;
};
TALLOW_INLINE I32 load_i32(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
TALLOW_INLINE void store_i32(int32_t* p, I32 a) { _mm512_storeu_si512(p, a.v); }
TALLOW_INLINE I32 set_i32(int32_t x) { return {_mm512_set1_epi32(x)}; }
TALLOW_INLINE I32 operator+(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
TALLOW_INLINE I32 operator-(I32 a, I32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
TALLOW_INLINE I32 operator&(I32 a, I32 b) { return {_mm512_and_si512(a.v, b.v)}; }
TALLOW_INLINE I32 operator|(I32 a, I32 b) { return {_mm512_or_si512(a.v, b.v)}; }
template <int n>
TALLOW_INLINE I32 shifted_left(I32 a) {
    return {_mm512_slli_epi32(a.v, n)};
}
template <int n>
TALLOW_INLINE I32 shifted_right(I32 a) {
    return {_mm512_srli_epi32(a.v, n)};
}
TALLOW_INLINE I32 widen_bytes(const unsigned char* p) { return {_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
TALLOW_INLINE I32 max(I32 a, I32 b) { return {_mm512_max_epi32(a.v, b.v)}; }
TALLOW_INLINE F32 to_float(I32 a) { return {_mm512_cvtepi32_ps(a.v)}; }
TALLOW_INLINE I32 to_int(F32 a) { return {_mm512_cvtps_epi32(a.v)}; }  // to nearest, ties to even
TALLOW_INLINE I32 bits_of_abs(F32 a) {
    return {_mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x7fffffff))};
}
TALLOW_INLINE void narrow_to(int8_t* p, I32 a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a.v)); }
TALLOW_INLINE void narrow_to(int16_t* p, I32 a) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(a.v)); }

#elif TALLOW_SIMD_AVX2

struct I32 {
    __m256i v;
};
TALLOW_INLINE I32 load_i32(const int32_t* p) { return {_mm256_loadu_si256((const __m256i*)p)}; }
TALLOW_INLINE void store_i32(int32_t* p, I32 a) { _mm256_storeu_si256((__m256i*)p, a.v); }
TALLOW_INLINE I32 set_i32(int32_t x) { return {_mm256_set1_epi32(x)}; }
TALLOW_INLINE I32 operator+(I32 a, I32 b) { return {_mm256_add_epi32(a.v, b.v)}; }
TALLOW_INLINE I32 operator-(I32 a, I32 b) { return {_mm256_sub_epi32(a.v, b.v)}; }
TALLOW_INLINE I32 operator&(I32 a, I32 b) { return {_mm256_and_si256(a.v, b.v)}; }
TALLOW_INLINE I32 operator|(I32 a, I32 b) { return {_mm256_or_si256(a.v, b.v)}; }
template <int n>
TALLOW_INLINE I32 shifted_left(I32 a) {
    return {_mm256_slli_epi32(a.v, n)};
}
template <int n>
TALLOW_INLINE I32 shifted_right(I32 a) {
    return {_mm256_srli_epi32(a.v, n)};
}
TALLOW_INLINE I32 widen_bytes(const unsigned char* p) { return {_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p))}; }
TALLOW_INLINE I32 max(I32 a, I32 b) { return {_mm256_max_epi32(a.v, b.v)}; }
TALLOW_INLINE F32 to_float(I32 a) { return {_mm256_cvtepi32_ps(a.v)}; }
TALLOW_INLINE I32 to_int(F32 a) { return {_mm256_cvtps_epi32(a.v)}; }
TALLOW_INLINE I32 bits_of_abs(F32 a) {
    return {_mm256_and_si256(_mm256_castps_si256(a.v), _mm256_set1_epi32(0x7fffffff))};
}
TALLOW_INLINE __m128i packed_16(I32 a) {
    return _mm_packs_epi32(_mm256_castsi256_si128(a.v), _mm256_extracti128_si256(a.v, 1));
}
TALLOW_INLINE void narrow_to(int8_t* p, I32 a) {
    const __m128i words = packed_16(a);
    _mm_storel_epi64((__m128i*)p, _mm_packs_epi16(words, words));
}
TALLOW_INLINE void narrow_to(int16_t* p, I32 a) { _mm_storeu_si128((__m128i*)p, packed_16(a)); }

#elif TALLOW_SIMD_SSE

struct I32 {
    __m128i v;
};
TALLOW_INLINE I32 load_i32(const int32_t* p) { return {_mm_loadu_si128((const __m128i*)p)}; }
TALLOW_INLINE void store_i32(int32_t* p, I32 a) { _mm_storeu_si128((__m128i*)p, a.v); }
TALLOW_INLINE I32 set_i32(int32_t x) { return {_mm_set1_epi32(x)}; }
TALLOW_INLINE I32 operator+(I32 a, I32 b) { return {_mm_add_epi32(a.v, b.v)}; }
TALLOW_INLINE I32 operator-(I32 a, I32 b) { return {_mm_sub_epi32(a.v, b.v)}; }
TALLOW_INLINE I32 operator&(I32 a, I32 b) { return {_mm_and_si128(a.v, b.v)}; }
TALLOW_INLINE I32 operator|(I32 a, I32 b) { return {_mm_or_si128(a.v, b.v)}; }
template <int n>
TALLOW_INLINE I32 shifted_left(I32 a) {
    return {_mm_slli_epi32(a.v, n)};
}
template <int n>
TALLOW_INLINE I32 shifted_right(I32 a) {
    return {_mm_srli_epi32(a.v, n)};
}
TALLOW_INLINE I32 widen_bytes(const unsigned char* p) {
    int32_t bytes;
    std::memcpy(&bytes, p, 4);
    return {_mm_cvtepi8_epi32(_mm_cvtsi32_si128(bytes))};
}
TALLOW_INLINE I32 max(I32 a, I32 b) { return {_mm_max_epi32(a.v, b.v)}; }
TALLOW_INLINE F32 to_float(I32 a) { return {_mm_cvtepi32_ps(a.v)}; }
TALLOW_INLINE I32 to_int(F32 a) { return {_mm_cvtps_epi32(a.v)}; }
TALLOW_INLINE I32 bits_of_abs(F32 a) { return {_mm_and_si128(_mm_castps_si128(a.v), _mm_set1_epi32(0x7fffffff))}; }
TALLOW_INLINE void narrow_to(int8_t* p, I32 a) {
    const __m128i words = _mm_packs_epi32(a.v, a.v);
    const int32_t bytes = _mm_cvtsi128_si32(_mm_packs_epi16(words, words));
    std::memcpy(p, &bytes, 4);
}
TALLOW_INLINE void narrow_to(int16_t* p, I32 a) { _mm_storel_epi64((__m128i*)p, _mm_packs_epi32(a.v, a.v)); }

#else  // NEON

struct I32 {
    int32x4_t v;
};
TALLOW_INLINE I32 load_i32(const int32_t* p) { return {vld1q_s32(p)}; }
TALLOW_INLINE void store_i32(int32_t* p, I32 a) { vst1q_s32(p, a.v); }
TALLOW_INLINE I32 set_i32(int32_t x) { return {vdupq_n_s32(x)}; }
TALLOW_INLINE I32 operator+(I32 a, I32 b) { return {vaddq_s32(a.v, b.v)}; }
TALLOW_INLINE I32 operator-(I32 a, I32 b) { return {vsubq_s32(a.v, b.v)}; }
TALLOW_INLINE I32 operator&(I32 a, I32 b) { return {vandq_s32(a.v, b.v)}; }
TALLOW_INLINE I32 operator|(I32 a, I32 b) { return {vorrq_s32(a.v, b.v)}; }
template <int n>
TALLOW_INLINE I32 shifted_left(I32 a) {
    return {vshlq_n_s32(a.v, n)};
}
template <int n>
TALLOW_INLINE I32 shifted_right(I32 a) {
    if constexpr (n == 0) return a;
    else return {vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v), n))};
}
TALLOW_INLINE I32 widen_bytes(const unsigned char* p) {
    uint32_t bytes;
    std::memcpy(&bytes, p, 4);
    return {vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(bytes)))))};
}
TALLOW_INLINE I32 max(I32 a, I32 b) { return {vmaxq_s32(a.v, b.v)}; }
TALLOW_INLINE F32 to_float(I32 a) { return {vcvtq_f32_s32(a.v)}; }
TALLOW_INLINE I32 to_int(F32 a) { return {vcvtnq_s32_f32(a.v)}; }
TALLOW_INLINE I32 bits_of_abs(F32 a) { return {vandq_s32(vreinterpretq_s32_f32(a.v), vdupq_n_s32(0x7fffffff))}; }
TALLOW_INLINE void narrow_to(int8_t* p, I32 a) {
    const int16x4_t words = vmovn_s32(a.v);
    const int32_t bytes = vget_lane_s32(vreinterpret_s32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
    std::memcpy(p, &bytes, 4);
}
TALLOW_INLINE void narrow_to(int16_t* p, I32 a) { vst1_s16(p, vmovn_s32(a.v)); }

#endif

TALLOW_INLINE int32_t largest(I32 a) {
    int32_t lane[width];
    store_i32(lane, a);
    int32_t best = lane[0];
    for (int i = 1; i < width; ++i) best = lane[i] > best ? lane[i] : best;
    return best;
}

TALLOW_INLINE int32_t sum(I32 a) {
    int32_t lane[width];
    store_i32(lane, a);
    int32_t total = 0;
    for (int i = 0; i < width; ++i) total += lane[i];
    return total;
}

}  // namespace tallow::TALLOW_LEVEL
