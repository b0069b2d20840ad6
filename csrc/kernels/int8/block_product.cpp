// Products with GGUF's blocks as they are stored: activations are quantised to 8 bits, group by group, each group is
// summed exactly, and the groups in their order as floats.
#include "kernels/finish.h"
#include "kernels/int8/block_format.h"
#include "kernels/int8/dot.h"
#include "kernels/int8/int8.h"
#include "kernels/table.h"

// AMX and I8MM sum more inputs at once than a group has: there the level below serves.
#if !defined(TALLOW_LEVEL_AMX) && !TALLOW_INT8_I8MM

namespace tallow::TALLOW_LEVEL {

namespace {

// Integer and float sums share the registers.
#if TALLOW_SIMD_AVX512
constexpr int rows_at_once = 6;
#else
constexpr int rows_at_once = 3;
#endif

constexpr int64_t stretch = stretch_of<int8_t>;

std::size_t scratch_bytes(const LinearArgs&, const Tile&) { return rows_at_once * panel_width * sizeof(float); }

// What a group of activations adds to every feature's sum beyond the products with codes: -zero for each, as an integer;
// or the sum of the activations, in float, which minima are multiplied by.
template <BlockFormat f>
void quantize(const LinearArgs& args, const QuantizedRows& to, int64_t row_begin, int64_t row_end, void* scratch) {
    quantize_to_bytes(args, to, row_begin, row_end, scratch);
    for (int64_t i = row_begin * to.groups; i < row_end * to.groups; ++i) {
        if constexpr (f.minima) {
            const float sum = to.scales[i] * float(to.sums[i]);
            std::memcpy(&to.sums[i], &sum, sizeof(sum));
        } else {
            to.sums[i] *= -f.zero;
        }
    }
}

// Four codes of each lane's feature, from the group's low and high bits.
template <BlockFormat f, int word>
TALLOW_INLINE I32 load_codes(const unsigned char* group, int vector) {
    constexpr int vector_bytes = width * 4;
    const unsigned char* at = group + word % low_words(f) * word_bytes + vector * vector_bytes;
    const I32 low = load_i32(reinterpret_cast<const int32_t*>(at));
    if constexpr (f.bits == 8) return low;
    const I32 codes = (word < low_words(f) ? low : shifted_right<4>(low)) & set_i32(0x0f0f0f0f);
    if constexpr (f.bits > 4 && f.bits < 8) {
        constexpr int bits = f.bits - 4, from = word * bits;  // in the byte of high bits; they go to bit 4
        const unsigned char* high_at = group + low_words(f) * word_bytes + vector * vector_bytes;
        const I32 high = load_i32(reinterpret_cast<const int32_t*>(high_at)), mask = set_i32(0x10101010 * ((1 << bits) - 1));
        if constexpr (from < 4) return codes | (shifted_left<4 - from>(high) & mask);
        return codes | (shifted_right<from <= 4 ? 0 : from - 4>(high) & mask);
    }
    return codes;
}

// Adds the products of a group, four inputs after four.
template <BlockFormat f, int rows, int word = 0>
TALLOW_INLINE void add_products(const unsigned char* group, const unsigned char* x, I32 (&sums)[rows][panel_vectors]) {
    I32 codes[panel_vectors];
    TALLOW_UNROLL
    for (int v = 0; v < panel_vectors; ++v) codes[v] = load_codes<f, word>(group, v);
    TALLOW_UNROLL
    for (int r = 0; r < rows; ++r) {
        const I32 a = set_i32(read<int32_t>(x + r * row_bytes + 4 * word));
        TALLOW_UNROLL
        for (int v = 0; v < panel_vectors; ++v)
            sums[r][v] = f.bits == 8 ? dot_bytes(codes[v], a, sums[r][v]) : dot_codes(codes[v], a, sums[r][v]);
    }
    if constexpr (word + 1 < words(f)) add_products<f, rows, word + 1>(group, x, sums);
}

// Scales (or minima) of a vector of features: the block's in half precision, times the group's if it has its own.
template <BlockFormat f>
TALLOW_INLINE F32 load_scales(F32 of_block, const unsigned char* of_group) {
    if constexpr (f.groups > 1) return of_block * to_float(widen_bytes(of_group));
    return of_block;
}

template <BlockFormat f, int rows>
void multiply_rows(const QuantizedRows& x, int64_t row, const PackedMatrix& w, int64_t panel, float* sums) {
    F32 total[rows][panel_vectors];
    TALLOW_UNROLL
    for (int r = 0; r < rows; ++r) {
        TALLOW_UNROLL
        for (int v = 0; v < panel_vectors; ++v) total[r][v] = set(0.0f);
    }
    const unsigned char* from = w.panels + panel * w.panel_bytes;
    for (int64_t g = 0; g < x.groups;) {
        const int64_t input = g * f.group;
        const unsigned char* values = x.values + (input / stretch * x.rows + row) * row_bytes + input % stretch;
        F32 d[panel_vectors], m[panel_vectors];
        TALLOW_UNROLL
        for (int v = 0; v < panel_vectors; ++v) {
            const uint16_t* header = reinterpret_cast<const uint16_t*>(from) + v * width;
            d[v] = load_f16(header);
            m[v] = f.minima ? load_f16(header + panel_width) : d[v];
        }
        from += header_bytes(f);
        for (const int64_t end = g + f.groups; g < end; ++g, from += group_bytes(f), values += f.group) {
            I32 acc[rows][panel_vectors];
            TALLOW_UNROLL
            for (int r = 0; r < rows; ++r) {
                const I32 first = set_i32(f.minima ? 0 : x.sums[(row + r) * x.groups + g]);
                TALLOW_UNROLL
                for (int v = 0; v < panel_vectors; ++v) acc[r][v] = first;
            }
            add_products<f>(from, values, acc);
            const unsigned char* scales = from + code_bytes(f);
            TALLOW_UNROLL
            for (int v = 0; v < panel_vectors; ++v) {
                const F32 scale = load_scales<f>(d[v], scales + v * width);
                TALLOW_UNROLL
                for (int r = 0; r < rows; ++r)
                    total[r][v] = fma(to_float(acc[r][v]), scale * set(x.scales[(row + r) * x.groups + g]), total[r][v]);
                if constexpr (f.minima) {
                    const F32 minimum = load_scales<f>(m[v], scales + panel_width + v * width);
                    TALLOW_UNROLL
                    for (int r = 0; r < rows; ++r) {
                        const auto* sum = reinterpret_cast<const unsigned char*>(x.sums + (row + r) * x.groups + g);
                        total[r][v] = fma(minimum, set(read<float>(sum)), total[r][v]);
                    }
                }
            }
        }
    }
    TALLOW_UNROLL
    for (int r = 0; r < rows; ++r) {
        TALLOW_UNROLL
        for (int v = 0; v < panel_vectors; ++v) store(sums + r * panel_width + v * width, total[r][v]);
    }
}

using RowsKernel = void (*)(const QuantizedRows& x, int64_t row, const PackedMatrix& w, int64_t panel, float* sums);

template <BlockFormat f, int rows>
RowsKernel pick(int64_t wanted_rows) {
    if constexpr (rows > 0) return wanted_rows == rows ? multiply_rows<f, rows> : pick<f, rows - 1>(wanted_rows);
    return nullptr;
}

template <BlockFormat f>
void multiply(const LinearArgs& args, const QuantizedRows* x, const Tile& tile, void* scratch) {
    float* sums = static_cast<float*>(scratch);
    const int64_t rows = tile.row_end - tile.row_begin, blocks = (rows + rows_at_once - 1) / rows_at_once;
    for (int64_t p = tile.panel_begin; p < tile.panel_end; ++p) {
        for (int64_t b = 0, row = tile.row_begin; b < blocks; ++b) {
            const int64_t count = rows / blocks + (b < rows % blocks);
            pick<f, rows_at_once>(count)(*x, row, *args.weight, p, sums);
            finish_panel(args, FloatSums{sums}, row, count, p);
            row += count;
        }
    }
}

template <int index>
void add(Kernels& table) {
    constexpr BlockFormat f = block_formats[index];
    MatrixKernels& kernels = table.matrix[static_cast<int>(f.storage)];
    kernels.block_rows = rows_at_once;
    kernels.stretch = stretch;
    kernels.row_bytes = row_bytes;
    kernels.scratch_bytes = scratch_bytes;
    kernels.quantize = quantize<f>;
    kernels.multiply = multiply<f>;
    if constexpr (index + 1 < block_format_count) add<index + 1>(table);
}

}  // namespace

void add_block_kernels(Kernels& table) {
    add_block_packing(table);
    add<0>(table);
}

}  // namespace tallow::TALLOW_LEVEL

#endif
