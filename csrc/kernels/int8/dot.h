// Four products a lane, summed exactly at every level: weights with activations from -127 to 127.
//
//   dot_codes   codes from 0 to 63, of which a pair of products fits 16 bits
//   dot_bytes   signed bytes, as weight_offset (arithmetic.h) has them: without VNNI the sign goes over to the activation,
//               since 255 · 127 twice would saturate, and 128 · 127 twice does not
#pragma once

#include "kernels/int8/arithmetic.h"

namespace tallow::TALLOW_LEVEL {

#if TALLOW_INT8_PAIRS

// Sums of pairs in 16 bits, added to 32-bit ones.
#if TALLOW_SIMD_AVX512
TALLOW_INLINE I32 add_pairs(__m512i pairs, I32 sums) {
    return {_mm512_add_epi32(sums.v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
}
TALLOW_INLINE I32 dot_codes(I32 codes, I32 x, I32 sums) { return add_pairs(_mm512_maddubs_epi16(codes.v, x.v), sums); }
TALLOW_INLINE I32 dot_bytes(I32 bytes, I32 x, I32 sums) {
    const __m512i turned = _mm512_mask_sub_epi8(x.v, _mm512_movepi8_mask(bytes.v), _mm512_setzero_si512(), x.v);
    return add_pairs(_mm512_maddubs_epi16(_mm512_abs_epi8(bytes.v), turned), sums);
}
#elif TALLOW_SIMD_AVX2
TALLOW_INLINE I32 add_pairs(__m256i pairs, I32 sums) {
    return {_mm256_add_epi32(sums.v, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
}
TALLOW_INLINE I32 dot_codes(I32 codes, I32 x, I32 sums) { return add_pairs(_mm256_maddubs_epi16(codes.v, x.v), sums); }
TALLOW_INLINE I32 dot_bytes(I32 bytes, I32 x, I32 sums) {
    return add_pairs(_mm256_maddubs_epi16(_mm256_abs_epi8(bytes.v), _mm256_sign_epi8(x.v, bytes.v)), sums);
}
#else
TALLOW_INLINE I32 add_pairs(__m128i pairs, I32 sums) {
    return {_mm_add_epi32(sums.v, _mm_madd_epi16(pairs, _mm_set1_epi16(1)))};
}
TALLOW_INLINE I32 dot_codes(I32 codes, I32 x, I32 sums) { return add_pairs(_mm_maddubs_epi16(codes.v, x.v), sums); }
TALLOW_INLINE I32 dot_bytes(I32 bytes, I32 x, I32 sums) {
    return add_pairs(_mm_maddubs_epi16(_mm_abs_epi8(bytes.v), _mm_sign_epi8(x.v, bytes.v)), sums);
}
#endif

#elif TALLOW_INT8_VNNI

TALLOW_INLINE I32 dot_bytes(I32 bytes, I32 x, I32 sums) { return Bytes::multiply_add(x, bytes, sums); }
TALLOW_INLINE I32 dot_codes(I32 codes, I32 x, I32 sums) { return dot_bytes(codes, x, sums); }

#elif TALLOW_INT8_NEON

TALLOW_INLINE I32 dot_bytes(I32 bytes, I32 x, I32 sums) {
    const int8x16_t a = vreinterpretq_s8_s32(bytes.v), b = vreinterpretq_s8_s32(x.v);
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
    return {vpadalq_s16(sums.v, vpaddq_s16(low, high))};
}
TALLOW_INLINE I32 dot_codes(I32 codes, I32 x, I32 sums) { return dot_bytes(codes, x, sums); }

#else

TALLOW_INLINE I32 dot_bytes(I32 bytes, I32 x, I32 sums) {
    return {vdotq_s32(sums.v, vreinterpretq_s8_s32(bytes.v), vreinterpretq_s8_s32(x.v))};
}
TALLOW_INLINE I32 dot_codes(I32 codes, I32 x, I32 sums) { return dot_bytes(codes, x, sums); }

#endif

}  // namespace tallow::TALLOW_LEVEL
