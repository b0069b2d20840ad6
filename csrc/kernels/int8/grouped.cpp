// Products of int8 weights and activations whose groups of inputs have scales of their own: each group is summed exactly,
// and the groups in their order as floats.
#include "kernels/finish.h"
#include "kernels/int8/int8.h"
#include "kernels/table.h"

// AMX and I8MM sum more inputs at once than a group may have: there the level below serves.
#if !defined(TALLOW_LEVEL_AMX) && !TALLOW_INT8_I8MM

namespace tallow::TALLOW_LEVEL {

namespace {

// Integer and float sums share the registers.
#if TALLOW_SIMD_AVX512
constexpr int grouped_rows = 6;
#else
constexpr int grouped_rows = 3;
#endif

std::size_t scratch_bytes(const LinearArgs&, const Tile&) { return grouped_rows * panel_width * sizeof(float); }

using GroupedBlock = void (*)(const QuantizedRows& x, int64_t row, const PackedMatrix& w, int64_t panel, float* sums);

template <int rows>
void grouped_block(const QuantizedRows& x, int64_t row, const PackedMatrix& w, int64_t panel, float* sums) {
    F32 total[rows][panel_vectors];
    TALLOW_UNROLL
    for (int r = 0; r < rows; ++r) {
        TALLOW_UNROLL
        for (int v = 0; v < panel_vectors; ++v) total[r][v] = set(0.0f);
    }
    const unsigned char* weights = w.panels + panel * w.panel_bytes;
    const float* weight_scales = w.scales + panel * x.groups * panel_width;
    for (int64_t g = 0; g < x.groups; ++g) {
        const int64_t input = g * w.group;
        const unsigned char* values = x.values + (input / int8_stretch * x.rows + row) * row_bytes +
                                      input % int8_stretch * int64_t(sizeof(Quantized));
        I32 acc[rows][panel_vectors];
        TALLOW_UNROLL
        for (int r = 0; r < rows; ++r) {
            TALLOW_UNROLL
            for (int v = 0; v < panel_vectors; ++v) acc[r][v] = set_i32(0);
        }
        for (int64_t i = 0; i < w.group; i += int8_unit) {
            Bytes::Weights bytes[panel_vectors];
            TALLOW_UNROLL
            for (int v = 0; v < panel_vectors; ++v) bytes[v] = Bytes::load_weights(weights + v * Bytes::vector_bytes);
            TALLOW_UNROLL
            for (int r = 0; r < rows; ++r) {
                const auto a = Bytes::broadcast(values + r * row_bytes);
                TALLOW_UNROLL
                for (int v = 0; v < panel_vectors; ++v) acc[r][v] = Bytes::multiply_add(a, bytes[v], acc[r][v]);
            }
            weights += panel_vectors * Bytes::vector_bytes;
            values += Bytes::step_bytes;
        }
        TALLOW_UNROLL
        for (int r = 0; r < rows; ++r) {
            const int64_t at = (row + r) * x.groups + g;
            const F32 scale = set(x.scales[at]);
            const I32 excess = set_i32(weight_offset * x.sums[at]);
            TALLOW_UNROLL
            for (int v = 0; v < panel_vectors; ++v)
                total[r][v] = fma(to_float(acc[r][v] - excess), scale * load(weight_scales + v * width), total[r][v]);
        }
        weight_scales += panel_width;
    }
    TALLOW_UNROLL
    for (int r = 0; r < rows; ++r) {
        TALLOW_UNROLL
        for (int v = 0; v < panel_vectors; ++v) store(sums + r * panel_width + v * width, total[r][v]);
    }
}

template <int rows>
GroupedBlock pick_grouped(int64_t wanted_rows) {
    if constexpr (rows > 0) return wanted_rows == rows ? grouped_block<rows> : pick_grouped<rows - 1>(wanted_rows);
    return nullptr;
}

void multiply(const LinearArgs& args, const QuantizedRows* x, const Tile& tile, void* scratch) {
    float* sums = static_cast<float*>(scratch);
    const int64_t rows = tile.row_end - tile.row_begin, blocks = (rows + grouped_rows - 1) / grouped_rows;
    for (int64_t p = tile.panel_begin; p < tile.panel_end; ++p) {
        for (int64_t b = 0, row = tile.row_begin; b < blocks; ++b) {
            const int64_t count = rows / blocks + (b < rows % blocks);
            pick_grouped<grouped_rows>(count)(*x, row, *args.weight, p, sums);
            finish_panel(args, FloatSums{sums}, row, count, p);
            row += count;
        }
    }
}

}  // namespace

void add_grouped_kernels(Kernels& table) {
    MatrixKernels& kernels = table.matrix[static_cast<int>(Storage::i8_groups)];
    kernels.panel = panel_width;
    kernels.padding = int8_padding;
    kernels.unit_bytes = panel_width * int8_padding;
    kernels.block_rows = grouped_rows;
    kernels.stretch = int8_stretch;
    kernels.row_bytes = row_bytes;
    kernels.scratch_bytes = scratch_bytes;
    kernels.pack = pack_int8;
    kernels.unpack = unpack_int8;
    kernels.quantize = quantize_rows;
    kernels.multiply = multiply;
}

}  // namespace tallow::TALLOW_LEVEL

#endif
