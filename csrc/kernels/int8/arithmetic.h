// How each level multiplies bytes. All give the same integers, exactly.
//
//   VNNI (avxvnni, avx512vnni, amx)   four products a lane; one operand is unsigned, so weights are stored with 128 added,
//                                     and 128 times the sum of a row's activations is taken off in the end
//   pairs (sse42, avx2, avx512)       two products a lane, of 16-bit numbers: the product of bytes saturates when a pair
//                                     is added, so weights are widened, and activations are stored in 16 bits
//   neon                              two products a lane, added in pairs
//   dotprod                           four products a lane
//   i8mm                              eight products a lane, two rows at once (int8/i8mm.h)
#pragma once

#include "kernels/int8/integers.h"
#include "kernels/product.h"

#if defined(TALLOW_LEVEL_AVXVNNI) || defined(TALLOW_LEVEL_AVX512VNNI) || defined(TALLOW_LEVEL_AMX)
#define TALLOW_INT8_VNNI 1
#elif TALLOW_SIMD_NEON
#if defined(TALLOW_LEVEL_NEON)
#define TALLOW_INT8_NEON 1
#elif defined(TALLOW_LEVEL_DOTPROD)
#define TALLOW_INT8_DOTPROD 1
#else
#define TALLOW_INT8_I8MM 1
#endif
#else
#define TALLOW_INT8_PAIRS 1
#endif

namespace tallow::TALLOW_LEVEL {

#if TALLOW_INT8_VNNI
constexpr int int8_unit = 4, weight_offset = 128;
using Quantized = int8_t;
#elif TALLOW_INT8_PAIRS
constexpr int int8_unit = 2, weight_offset = 0;
using Quantized = int16_t;
#elif TALLOW_INT8_NEON
constexpr int int8_unit = 2, weight_offset = 0;
using Quantized = int8_t;
#elif TALLOW_INT8_DOTPROD
constexpr int int8_unit = 4, weight_offset = 0;
using Quantized = int8_t;
#else
constexpr int int8_unit = 8, weight_offset = 0;
using Quantized = int8_t;
#endif

#if defined(TALLOW_LEVEL_AMX)
constexpr int int8_padding = 64;  // a tile takes 64 inputs at once
#else
constexpr int int8_padding = int8_unit;
#endif

// Inputs in a stretch of quantised rows.
template <typename T>
constexpr int64_t stretch_of = sizeof(T) == 2 ? 512 : 768;
constexpr int64_t int8_stretch = stretch_of<Quantized>;
static_assert(int8_stretch % largest_group == 0 && int8_stretch * int64_t(sizeof(Quantized)) <= stretch_bytes);

struct IntegerSums {
    using Sum = I32;
    static constexpr int most_panels = most_panels_at_once;
    TALLOW_INLINE I32 zero() { return set_i32(0); }
    TALLOW_INLINE I32 load_sums(const int32_t* p) { return load_i32(p); }
    TALLOW_INLINE void store_sums(int32_t* p, I32 sums) { store_i32(p, sums); }
};

template <typename T>
TALLOW_INLINE T read(const unsigned char* p) {
    T value;
    std::memcpy(&value, p, sizeof(T));
    return value;
}

#if TALLOW_INT8_PAIRS

// Weights already widened to 16 bits.
struct Words : IntegerSums {
    using Weights = I32;
    using Wide = Words;
    static constexpr int step_bytes = 4, vector_bytes = width * 4, block_rows = tallow::TALLOW_LEVEL::block_rows;

    TALLOW_INLINE I32 load_weights(const unsigned char* p) { return load_i32(reinterpret_cast<const int32_t*>(p)); }
    TALLOW_INLINE I32 broadcast(const unsigned char* x) { return set_i32(read<int32_t>(x)); }
    TALLOW_INLINE I32 multiply_add(I32 x, I32 w, I32 sums) {
#if TALLOW_SIMD_AVX512
        return {_mm512_add_epi32(sums.v, _mm512_madd_epi16(x.v, w.v))};
#elif TALLOW_SIMD_AVX2
        return {_mm256_add_epi32(sums.v, _mm256_madd_epi16(x.v, w.v))};
#else
        return {_mm_add_epi32(sums.v, _mm_madd_epi16(x.v, w.v))};
#endif
    }
    static Block pick(int64_t rows, int64_t panels) { return pick_block<Words, block_rows>(rows, panels); }
};

struct Bytes : Words {
    using Wide = Words;
    static constexpr int vector_bytes = width * 2;

    TALLOW_INLINE I32 load_weights(const unsigned char* p) {
#if TALLOW_SIMD_AVX512
        return {_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p))};
#elif TALLOW_SIMD_AVX2
        return {_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p))};
#else
        return {_mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i*)p))};
#endif
    }
    TALLOW_INLINE void widen(const unsigned char* from, unsigned char* to) {
        store_i32(reinterpret_cast<int32_t*>(to), load_weights(from));
    }
    static Block pick(int64_t rows, int64_t panels) { return pick_block<Bytes, block_rows>(rows, panels); }
};

#elif TALLOW_INT8_NEON

struct Bytes : IntegerSums {
    using Weights = int8x8_t;
    using Wide = Bytes;
    static constexpr int step_bytes = 2, vector_bytes = 8, block_rows = tallow::TALLOW_LEVEL::block_rows;

    TALLOW_INLINE int8x8_t load_weights(const unsigned char* p) { return vld1_s8(reinterpret_cast<const int8_t*>(p)); }
    TALLOW_INLINE int8x8_t broadcast(const unsigned char* x) { return vreinterpret_s8_s16(vdup_n_s16(read<int16_t>(x))); }
    TALLOW_INLINE I32 multiply_add(int8x8_t x, int8x8_t w, I32 sums) { return {vpadalq_s16(sums.v, vmull_s8(x, w))}; }
    static Block pick(int64_t rows, int64_t panels) { return pick_block<Bytes, block_rows>(rows, panels); }
};

#elif TALLOW_INT8_DOTPROD

struct Bytes : IntegerSums {
    using Weights = int8x16_t;
    using Wide = Bytes;
    static constexpr int step_bytes = 4, vector_bytes = 16, block_rows = tallow::TALLOW_LEVEL::block_rows;

    TALLOW_INLINE int8x16_t load_weights(const unsigned char* p) { return vld1q_s8(reinterpret_cast<const int8_t*>(p)); }
    TALLOW_INLINE int8x16_t broadcast(const unsigned char* x) { return vreinterpretq_s8_s32(vdupq_n_s32(read<int32_t>(x))); }
    TALLOW_INLINE I32 multiply_add(int8x16_t x, int8x16_t w, I32 sums) { return {vdotq_s32(sums.v, w, x)}; }
    static Block pick(int64_t rows, int64_t panels) { return pick_block<Bytes, block_rows>(rows, panels); }
};

#elif TALLOW_INT8_VNNI

struct Bytes : IntegerSums {
    using Weights = I32;
    using Wide = Bytes;
    static constexpr int step_bytes = 4, vector_bytes = width * 4;
#if defined(TALLOW_LEVEL_AMX)
    static constexpr int block_rows = 32;
#else
    static constexpr int block_rows = tallow::TALLOW_LEVEL::block_rows;
#endif

    TALLOW_INLINE I32 load_weights(const unsigned char* p) { return load_i32(reinterpret_cast<const int32_t*>(p)); }
    TALLOW_INLINE I32 broadcast(const unsigned char* x) { return set_i32(read<int32_t>(x)); }
    TALLOW_INLINE I32 multiply_add(I32 x, I32 w, I32 sums) {
#if TALLOW_SIMD_AVX512
        return {_mm512_dpbusd_epi32(sums.v, w.v, x.v)};
#else
        return {_mm256_dpbusd_avx_epi32(sums.v, w.v, x.v)};
#endif
    }
    static Block pick(int64_t rows, int64_t panels);
};

#if !defined(TALLOW_LEVEL_AMX)
inline Block Bytes::pick(int64_t rows, int64_t panels) { return pick_block<Bytes, block_rows>(rows, panels); }
#endif

#endif

}  // namespace tallow::TALLOW_LEVEL

#if defined(TALLOW_LEVEL_AMX)
#include "kernels/int8/amx.h"
#elif TALLOW_INT8_I8MM
#include "kernels/int8/i8mm.h"
#endif
