// F32: a vector of floats as wide as the instruction set has, and what kernels do with it.
//
// Everything lies in the level's own namespace: were an inline function shared between levels, the linker would keep one
// copy, perhaps the one with instructions that this processor lacks. For the same reason kernel sources use nothing
// inline from the standard library (no std::max, std::vector, std::exp): what they need stands here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(TALLOW_LEVEL_AVX512) || defined(TALLOW_LEVEL_AVX512VNNI) || defined(TALLOW_LEVEL_AMX)
#define TALLOW_SIMD_AVX512 1
#elif defined(TALLOW_LEVEL_AVX2) || defined(TALLOW_LEVEL_AVXVNNI)
#define TALLOW_SIMD_AVX2 1
#elif defined(TALLOW_LEVEL_SSE42)
#define TALLOW_SIMD_SSE 1
#else
#define TALLOW_SIMD_NEON 1
#endif

#if TALLOW_SIMD_NEON
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif

#if defined(_MSC_VER)
#define TALLOW_INLINE static __forceinline
#define TALLOW_UNROLL
#else
#define TALLOW_INLINE static inline __attribute__((always_inline))
#define TALLOW_UNROLL _Pragma("GCC unroll 64")  // of loops whose counts are constants: arrays become registers
#endif

namespace tallow::TALLOW_LEVEL {

#if TALLOW_SIMD_AVX512 || TALLOW_SIMD_NEON
constexpr int vector_registers = 32;
#else
constexpr int vector_registers = 16;
#endif

using std::int32_t;
using std::int64_t;
using std::int8_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

TALLOW_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
TALLOW_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
// Starts to bring a cache line nearer, into the second cache; any address will do.
TALLOW_INLINE void prefetch(const void* p) {
#if !TALLOW_SIMD_NEON
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1);
#elif !defined(_MSC_VER)
    __builtin_prefetch(p, 0, 2);
#endif
}
TALLOW_INLINE float as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
TALLOW_INLINE uint32_t as_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

TALLOW_INLINE float bf16_to_float(uint16_t h) { return as_float(uint32_t(h) << 16); }

TALLOW_INLINE float f16_to_float(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
    if (exponent == 31) return as_float(sign | 0x7f800000 | mantissa << 13);
    if (exponent) return as_float(sign | (exponent + 112) << 23 | mantissa << 13);
    const float value = float(mantissa) * 5.9604644775390625e-8f;  // subnormal: mantissa times 2^-24
    return as_float(as_bits(value) | sign);
}

// Rounds to nearest, ties to even; NaN stays NaN.
TALLOW_INLINE uint16_t float_to_f16(float value) {
#if TALLOW_SIMD_AVX512 || TALLOW_SIMD_AVX2
    return static_cast<uint16_t>(_mm_extract_epi16(_mm_cvtps_ph(_mm_set_ss(value), _MM_FROUND_TO_NEAREST_INT), 0));
#elif TALLOW_SIMD_NEON
    return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(value))), 0);
#else
    const uint32_t bits = as_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // 65520 and more round to infinity
    if (magnitude < 0x38800000) {  // below 2^-14: adding 0.5 leaves the multiples of 2^-24 in the low bits, rounded
        return static_cast<uint16_t>(sign | (as_bits(as_float(magnitude) + 0.5f) - 0x3f000000));
    }
    const uint32_t rounded = magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1);
    return static_cast<uint16_t>(sign | rounded >> 13);
#endif
}

#if TALLOW_SIMD_AVX512

struct F32 {
    __m512 v;
};
constexpr int width = 16;

TALLOW_INLINE F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
TALLOW_INLINE void store(float* p, F32 a) { _mm512_storeu_ps(p, a.v); }
TALLOW_INLINE __mmask16 lanes(int64_t n) { return n >= 16 ? __mmask16(0xffff) : __mmask16((1u << n) - 1); }
TALLOW_INLINE F32 load_partial(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(lanes(n), p)}; }
TALLOW_INLINE void store_partial(float* p, F32 a, int64_t n) { _mm512_mask_storeu_ps(p, lanes(n), a.v); }
TALLOW_INLINE F32 set(float x) { return {_mm512_set1_ps(x)}; }
TALLOW_INLINE F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
TALLOW_INLINE F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
TALLOW_INLINE F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
TALLOW_INLINE F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
TALLOW_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// max and min give the second operand when either is NaN.
TALLOW_INLINE F32 max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
TALLOW_INLINE F32 min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
TALLOW_INLINE F32 sqrt(F32 a) { return {_mm512_sqrt_ps(a.v)}; }
TALLOW_INLINE F32 abs(F32 a) { return {_mm512_abs_ps(a.v)}; }
TALLOW_INLINE F32 round(F32 a) { return {_mm512_roundscale_ps(a.v, 8)}; }  // to nearest, ties to even
TALLOW_INLINE F32 copysign(F32 a, F32 sign) {
    const __m512i mask = _mm512_set1_epi32(int32_t(0x80000000));
    return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(mask, _mm512_castps_si512(sign.v), _mm512_castps_si512(a.v), 0xca))};
}
// a where x < y, else b (also where x or y is NaN)
TALLOW_INLINE F32 if_less(F32 x, F32 y, F32 a, F32 b) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, y.v, _CMP_LT_OQ), b.v, a.v)};
}
TALLOW_INLINE F32 if_nan(F32 x, F32 a, F32 b) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q), b.v, a.v)};
}
TALLOW_INLINE F32 pow2(F32 n) {  // 2^n for whole n in [-126, 127]
    const __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(e, 23))};
}
TALLOW_INLINE F32 shift_left(F32 a) {  // its bits, 23 places
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a.v), 23))};
}
TALLOW_INLINE bool any_less(F32 a, F32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ) != 0; }
TALLOW_INLINE void store_f16(uint16_t* p, F32 a) {
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
TALLOW_INLINE F32 load_f16(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
TALLOW_INLINE F32 load_bf16(const uint16_t* p) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))};
}
TALLOW_INLINE F32 load_i8(const int8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)))};
}
TALLOW_INLINE float sum(F32 a) {
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
TALLOW_INLINE __m128 folded(F32 a) {
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

#elif TALLOW_SIMD_AVX2

struct F32 {
    __m256 v;
};
constexpr int width = 8;

TALLOW_INLINE F32 load(const float* p) { return {_mm256_loadu_ps(p)}; }
TALLOW_INLINE void store(float* p, F32 a) { _mm256_storeu_ps(p, a.v); }
TALLOW_INLINE __m256i lanes(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(int32_t(n > 8 ? 8 : n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
TALLOW_INLINE F32 load_partial(const float* p, int64_t n) { return {_mm256_maskload_ps(p, lanes(n))}; }
TALLOW_INLINE void store_partial(float* p, F32 a, int64_t n) { _mm256_maskstore_ps(p, lanes(n), a.v); }
TALLOW_INLINE F32 set(float x) { return {_mm256_set1_ps(x)}; }
TALLOW_INLINE F32 operator+(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
TALLOW_INLINE F32 operator-(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
TALLOW_INLINE F32 operator*(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
TALLOW_INLINE F32 operator/(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
TALLOW_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
TALLOW_INLINE F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }
TALLOW_INLINE F32 min(F32 a, F32 b) { return {_mm256_min_ps(a.v, b.v)}; }
TALLOW_INLINE F32 sqrt(F32 a) { return {_mm256_sqrt_ps(a.v)}; }
TALLOW_INLINE F32 abs(F32 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
TALLOW_INLINE F32 round(F32 a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
TALLOW_INLINE F32 copysign(F32 a, F32 sign) {
    const __m256 mask = _mm256_set1_ps(-0.0f);
    return {_mm256_or_ps(_mm256_andnot_ps(mask, a.v), _mm256_and_ps(mask, sign.v))};
}
TALLOW_INLINE F32 if_less(F32 x, F32 y, F32 a, F32 b) {
    return {_mm256_blendv_ps(b.v, a.v, _mm256_cmp_ps(x.v, y.v, _CMP_LT_OQ))};
}
TALLOW_INLINE F32 if_nan(F32 x, F32 a, F32 b) {
    return {_mm256_blendv_ps(b.v, a.v, _mm256_cmp_ps(x.v, x.v, _CMP_UNORD_Q))};
}
TALLOW_INLINE F32 pow2(F32 n) {
    const __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(e, 23))};
}
TALLOW_INLINE F32 shift_left(F32 a) { return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.v), 23))}; }
TALLOW_INLINE bool any_less(F32 a, F32 b) { return _mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)) != 0; }
TALLOW_INLINE void store_f16(uint16_t* p, F32 a) {
    _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
TALLOW_INLINE F32 load_f16(const uint16_t* p) { return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p))}; }
TALLOW_INLINE F32 load_bf16(const uint16_t* p) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16))};
}
TALLOW_INLINE F32 load_i8(const int8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)))};
}
TALLOW_INLINE float sum(F32 a) {
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
TALLOW_INLINE __m128 folded(F32 a) { return _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1)); }

#elif TALLOW_SIMD_SSE

struct F32 {
    __m128 v;
};
constexpr int width = 4;

TALLOW_INLINE F32 load(const float* p) { return {_mm_loadu_ps(p)}; }
TALLOW_INLINE void store(float* p, F32 a) { _mm_storeu_ps(p, a.v); }
TALLOW_INLINE F32 set(float x) { return {_mm_set1_ps(x)}; }
TALLOW_INLINE F32 operator+(F32 a, F32 b) { return {_mm_add_ps(a.v, b.v)}; }
TALLOW_INLINE F32 operator-(F32 a, F32 b) { return {_mm_sub_ps(a.v, b.v)}; }
TALLOW_INLINE F32 operator*(F32 a, F32 b) { return {_mm_mul_ps(a.v, b.v)}; }
TALLOW_INLINE F32 operator/(F32 a, F32 b) { return {_mm_div_ps(a.v, b.v)}; }
TALLOW_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm_add_ps(_mm_mul_ps(a.v, b.v), c.v)}; }
TALLOW_INLINE F32 max(F32 a, F32 b) { return {_mm_max_ps(a.v, b.v)}; }
TALLOW_INLINE F32 min(F32 a, F32 b) { return {_mm_min_ps(a.v, b.v)}; }
TALLOW_INLINE F32 sqrt(F32 a) { return {_mm_sqrt_ps(a.v)}; }
TALLOW_INLINE F32 abs(F32 a) { return {_mm_andnot_ps(_mm_set1_ps(-0.0f), a.v)}; }
TALLOW_INLINE F32 round(F32 a) { return {_mm_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
TALLOW_INLINE F32 copysign(F32 a, F32 sign) {
    const __m128 mask = _mm_set1_ps(-0.0f);
    return {_mm_or_ps(_mm_andnot_ps(mask, a.v), _mm_and_ps(mask, sign.v))};
}
TALLOW_INLINE F32 if_less(F32 x, F32 y, F32 a, F32 b) { return {_mm_blendv_ps(b.v, a.v, _mm_cmplt_ps(x.v, y.v))}; }
TALLOW_INLINE F32 if_nan(F32 x, F32 a, F32 b) { return {_mm_blendv_ps(b.v, a.v, _mm_cmpunord_ps(x.v, x.v))}; }
TALLOW_INLINE F32 pow2(F32 n) {
    return {_mm_castsi128_ps(_mm_slli_epi32(_mm_add_epi32(_mm_cvtps_epi32(n.v), _mm_set1_epi32(127)), 23))};
}
TALLOW_INLINE F32 shift_left(F32 a) { return {_mm_castsi128_ps(_mm_slli_epi32(_mm_castps_si128(a.v), 23))}; }
TALLOW_INLINE bool any_less(F32 a, F32 b) { return _mm_movemask_ps(_mm_cmplt_ps(a.v, b.v)) != 0; }
TALLOW_INLINE void store_f16(uint16_t* p, F32 a) {
    float lane[width];
    store(lane, a);
    for (int i = 0; i < width; ++i) p[i] = float_to_f16(lane[i]);
}
TALLOW_INLINE F32 load_f16(const uint16_t* p) {
    return {_mm_setr_ps(f16_to_float(p[0]), f16_to_float(p[1]), f16_to_float(p[2]), f16_to_float(p[3]))};
}
TALLOW_INLINE F32 load_bf16(const uint16_t* p) {
    return {_mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i*)p)), 16))};
}
TALLOW_INLINE F32 load_i8(const int8_t* p) {
    int32_t bytes;
    std::memcpy(&bytes, p, 4);
    return {_mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(bytes)))};
}
TALLOW_INLINE float sum(F32 a) {
    const __m128 q = _mm_add_ps(a.v, _mm_movehl_ps(a.v, a.v));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}
TALLOW_INLINE __m128 folded(F32 a) { return a.v; }

#else  // NEON

struct F32 {
    float32x4_t v;
};
constexpr int width = 4;

TALLOW_INLINE F32 load(const float* p) { return {vld1q_f32(p)}; }
TALLOW_INLINE void store(float* p, F32 a) { vst1q_f32(p, a.v); }
TALLOW_INLINE F32 set(float x) { return {vdupq_n_f32(x)}; }
TALLOW_INLINE F32 operator+(F32 a, F32 b) { return {vaddq_f32(a.v, b.v)}; }
TALLOW_INLINE F32 operator-(F32 a, F32 b) { return {vsubq_f32(a.v, b.v)}; }
TALLOW_INLINE F32 operator*(F32 a, F32 b) { return {vmulq_f32(a.v, b.v)}; }
TALLOW_INLINE F32 operator/(F32 a, F32 b) { return {vdivq_f32(a.v, b.v)}; }
TALLOW_INLINE F32 fma(F32 a, F32 b, F32 c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
TALLOW_INLINE F32 max(F32 a, F32 b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
TALLOW_INLINE F32 min(F32 a, F32 b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
TALLOW_INLINE F32 sqrt(F32 a) { return {vsqrtq_f32(a.v)}; }
TALLOW_INLINE F32 abs(F32 a) { return {vabsq_f32(a.v)}; }
TALLOW_INLINE F32 round(F32 a) { return {vrndnq_f32(a.v)}; }
TALLOW_INLINE F32 copysign(F32 a, F32 sign) { return {vbslq_f32(vdupq_n_u32(0x80000000), sign.v, a.v)}; }
TALLOW_INLINE F32 if_less(F32 x, F32 y, F32 a, F32 b) { return {vbslq_f32(vcltq_f32(x.v, y.v), a.v, b.v)}; }
TALLOW_INLINE F32 if_nan(F32 x, F32 a, F32 b) { return {vbslq_f32(vceqq_f32(x.v, x.v), b.v, a.v)}; }
TALLOW_INLINE F32 pow2(F32 n) {
    return {vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n.v), vdupq_n_s32(127)), 23))};
}
TALLOW_INLINE F32 shift_left(F32 a) { return {vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(a.v), 23))}; }
TALLOW_INLINE bool any_less(F32 a, F32 b) { return vmaxvq_u32(vcltq_f32(a.v, b.v)) != 0; }
TALLOW_INLINE void store_f16(uint16_t* p, F32 a) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a.v))); }
TALLOW_INLINE F32 load_f16(const uint16_t* p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))}; }
TALLOW_INLINE F32 load_bf16(const uint16_t* p) { return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16))}; }
TALLOW_INLINE F32 load_i8(const int8_t* p) {
    int32_t bytes;
    std::memcpy(&bytes, p, 4);
    const int8x8_t few = vreinterpret_s8_s32(vdup_n_s32(bytes));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(few))))};
}
TALLOW_INLINE float sum(F32 a) {
    const float32x2_t q = vadd_f32(vget_low_f32(a.v), vget_high_f32(a.v));
    return vget_lane_f32(vpadd_f32(q, q), 0);
}

#endif

#if TALLOW_SIMD_SSE || TALLOW_SIMD_NEON
TALLOW_INLINE F32 load_partial(const float* p, int64_t n) {
    if (n >= width) return load(p);
    float lane[width] = {};
    for (int64_t i = 0; i < n; ++i) lane[i] = p[i];
    return load(lane);
}
TALLOW_INLINE void store_partial(float* p, F32 a, int64_t n) {
    if (n >= width) return store(p, a);
    float lane[width];
    store(lane, a);
    for (int64_t i = 0; i < n; ++i) p[i] = lane[i];
}
#endif

// The sums of the lanes of four vectors.
TALLOW_INLINE void sum4(const F32* a, float* out) {
#if TALLOW_SIMD_NEON
    vst1q_f32(out, vpaddq_f32(vpaddq_f32(a[0].v, a[1].v), vpaddq_f32(a[2].v, a[3].v)));
#else
    const __m128 ab = _mm_hadd_ps(folded(a[0]), folded(a[1])), cd = _mm_hadd_ps(folded(a[2]), folded(a[3]));
    _mm_storeu_ps(out, _mm_hadd_ps(ab, cd));
#endif
}

// Turns four rows of four floats into columns; strides in floats.
TALLOW_INLINE void turn4(float* to, int64_t to_stride, const float* from, int64_t from_stride) {
#if TALLOW_SIMD_NEON
    const float32x4_t a = vld1q_f32(from), b = vld1q_f32(from + from_stride);
    const float32x4_t c = vld1q_f32(from + 2 * from_stride), d = vld1q_f32(from + 3 * from_stride);
    const float64x2_t ab0 = vreinterpretq_f64_f32(vtrn1q_f32(a, b)), ab1 = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
    const float64x2_t cd0 = vreinterpretq_f64_f32(vtrn1q_f32(c, d)), cd1 = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
    vst1q_f32(to, vreinterpretq_f32_f64(vtrn1q_f64(ab0, cd0)));
    vst1q_f32(to + to_stride, vreinterpretq_f32_f64(vtrn1q_f64(ab1, cd1)));
    vst1q_f32(to + 2 * to_stride, vreinterpretq_f32_f64(vtrn2q_f64(ab0, cd0)));
    vst1q_f32(to + 3 * to_stride, vreinterpretq_f32_f64(vtrn2q_f64(ab1, cd1)));
#else
    __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + from_stride);
    __m128 c = _mm_loadu_ps(from + 2 * from_stride), d = _mm_loadu_ps(from + 3 * from_stride);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(to, a);
    _mm_storeu_ps(to + to_stride, b);
    _mm_storeu_ps(to + 2 * to_stride, c);
    _mm_storeu_ps(to + 3 * to_stride, d);
#endif
}

TALLOW_INLINE float largest(F32 a) {  // -inf lanes allowed; NaN lanes are passed over unless all are NaN
    float lane[width];
    store(lane, a);
    float best = lane[0];
    for (int i = 1; i < width; ++i) best = lane[i] > best || best != best ? lane[i] : best;
    return best;
}

// e^x to about 1 ulp (Cody and Waite's reduction, a polynomial of degree 6): 0 below -87.3, +inf above 88.7, NaN for NaN.
TALLOW_INLINE F32 exp(F32 x) {
    const F32 clamped = max(set(-87.33654f), min(set(88.72283f), x));
    const F32 n = round(clamped * set(1.44269504f));
    F32 r = fma(n, set(-0.693359375f), clamped);
    r = fma(n, set(2.12194440e-4f), r);
    F32 p = set(1.9875691500e-4f);
    p = fma(p, r, set(1.3981999507e-3f));
    p = fma(p, r, set(8.3334519073e-3f));
    p = fma(p, r, set(4.1665795894e-2f));
    p = fma(p, r, set(1.6666665459e-1f));
    p = fma(p, r, set(5.0000001201e-1f));
    p = fma(p, r * r, r + set(1.0f));
    // n may be 128 where 2^n alone would overflow: multiply in two steps.
    const F32 low = min(n, set(127.0f));
    F32 y = p * pow2(low) * pow2(n - low);
    y = if_less(x, set(-87.33654f), set(0.0f), y);
    y = if_less(set(88.72283f), x, set(as_float(0x7f800000)), y);
    return if_nan(x, x, y);
}

}  // namespace tallow::TALLOW_LEVEL
