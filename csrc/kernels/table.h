// The kernels of one level, as function pointers. A kernel computes a stretch of rows or tiles on one thread; the
// operations in csrc/ops share the stretches out to the pool.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/depthwise.h"
#include "kernels/matrix.h"
#include "kernels/norm.h"
#include "kernels/rope.h"
#include "kernels/rowwise.h"
#include "kernels/search.h"

namespace tallow {

struct Kernels {
    void (*layer_norm)(const NormArgs& args, std::int64_t begin, std::int64_t end);
    void (*rms_norm)(const NormArgs& args, std::int64_t begin, std::int64_t end);
    void (*activate)(const ActivationArgs& args, std::int64_t row, std::int64_t begin, std::int64_t end);
    void (*softmax)(const SoftmaxArgs& args, std::int64_t begin, std::int64_t end);
    Largest (*argmax)(const float* x, std::int64_t count);  // at least one
    Exponentials (*sum_exponentials)(const float* x, std::int64_t count);  // likewise
    void (*rope)(const RopeArgs& args, std::int64_t begin, std::int64_t end);            // positions of all rows
    void (*depthwise)(const DepthwiseArgs& args, std::int64_t begin, std::int64_t end);  // lines of all outputs
    MatrixKernels matrix[storage_count];  // by Storage

    // Stores positions [begin, end) of a row and head; no other thread may be writing to a panel that they touch.
    void (*store_key_values)(const StoreArgs& args, std::int64_t row, std::int64_t head, std::int64_t begin,
                             std::int64_t end);
    void (*attend)(const AttentionArgs& args, const QueryTile& tile, void* scratch);
    std::int64_t (*attention_scratch)(const KeyValues& kv, std::int64_t rows);  // bytes for a tile of so many rows

    // Scores of rows [begin, end) for every query; scratch for score_rows rows in float32.
    void (*score)(const ScoreArgs& args, std::int64_t begin, std::int64_t end, float* scratch);
    // The first of [begin, end) above a threshold that is not NaN; `end` if there is none.
    std::int64_t (*next_above)(const float* scores, std::int64_t begin, std::int64_t end, float threshold);

    // Limits of the machine; both give a result that means nothing.
    float (*multiply_add_loop)(std::int64_t steps);
    std::int64_t multiply_adds_in_step;
    float (*read_loop)(const float* data, std::int64_t n);
};

// Each family fills in its part of the table; one such function exists for every level that the family is built for.
#define TALLOW_DECLARE_LEVEL(level)                 \
    namespace level {                               \
    void add_norm_kernels(Kernels& table);          \
    void add_rowwise_kernels(Kernels& table);       \
    void add_rope_kernels(Kernels& table);          \
    void add_depthwise_kernels(Kernels& table);     \
    void add_linear_kernels(Kernels& table);        \
    void add_packing_kernels(Kernels& table);       \
    void add_attention_kernels(Kernels& table);     \
    void add_key_values_kernels(Kernels& table);    \
    void add_search_kernels(Kernels& table);        \
    void add_measure_kernels(Kernels& table);       \
    inline void add_kernels(Kernels& table) {       \
        add_norm_kernels(table);                    \
        add_rowwise_kernels(table);                 \
        add_rope_kernels(table);                    \
        add_depthwise_kernels(table);               \
        add_linear_kernels(table);                  \
        add_packing_kernels(table);                 \
        add_attention_kernels(table);               \
        add_key_values_kernels(table);              \
        add_search_kernels(table);                  \
        add_measure_kernels(table);                 \
    }                                               \
    }
TALLOW_DECLARE_LEVEL(sse42)
TALLOW_DECLARE_LEVEL(avx2)
TALLOW_DECLARE_LEVEL(avx512)
TALLOW_DECLARE_LEVEL(neon)
#undef TALLOW_DECLARE_LEVEL

// The int8 families exist for each way to multiply bytes as well.
#define TALLOW_DECLARE_INT8_LEVEL(level)            \
    namespace level {                               \
    void add_int8_kernels(Kernels& table);          \
    void add_grouped_kernels(Kernels& table);       \
    void add_block_kernels(Kernels& table);         \
    }
TALLOW_DECLARE_INT8_LEVEL(sse42)
TALLOW_DECLARE_INT8_LEVEL(avx2)
TALLOW_DECLARE_INT8_LEVEL(avxvnni)
TALLOW_DECLARE_INT8_LEVEL(avx512)
TALLOW_DECLARE_INT8_LEVEL(avx512vnni)
TALLOW_DECLARE_INT8_LEVEL(amx)
TALLOW_DECLARE_INT8_LEVEL(neon)
TALLOW_DECLARE_INT8_LEVEL(dotprod)
TALLOW_DECLARE_INT8_LEVEL(i8mm)
#undef TALLOW_DECLARE_INT8_LEVEL

}  // namespace tallow
