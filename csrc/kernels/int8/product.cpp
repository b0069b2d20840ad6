// Products of int8 weights and activations, summed exactly and scaled once.
#include "kernels/finish.h"
#include "kernels/int8/int8.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

std::size_t scratch_bytes(const LinearArgs&, const Tile& tile) { return std::size_t(widened_bytes + sums_bytes(tile)); }

// The sums of a block, scaled.
struct ScaledSums {
    const int32_t* sums;
    const float *row_scales, *feature_scales;
    const int32_t* row_sums;

    TALLOW_INLINE F32 at(const ScaledSums& s, int64_t row, int64_t index, int64_t feature) {
        const I32 exact = load_i32(s.sums + index) - set_i32(weight_offset * s.row_sums[row]);
        return to_float(exact) * (set(s.row_scales[row]) * load(s.feature_scales + feature));
    }
};

void multiply(const LinearArgs& args, const QuantizedRows* x, const Tile& tile, void* scratch) {
    const PackedMatrix& w = *args.weight;
    const Work work{static_cast<unsigned char*>(scratch),
                    reinterpret_cast<int32_t*>(static_cast<unsigned char*>(scratch) + widened_bytes)};
    auto finish = [&](const int32_t* sums, int64_t row, int64_t count, int64_t panel) {
        row += tile.row_begin;
        finish_panel(args, ScaledSums{sums, x->scales + row, w.scales, x->sums + row}, row, count, panel);
    };
    for (int64_t begin = 0; begin == 0 || begin < w.k; begin += int8_stretch) {
        const int64_t end = smaller(w.k, begin + int8_stretch);
        const unsigned char* rows = x->values + (begin / int8_stretch * x->rows + tile.row_begin) * row_bytes;
        const Stretch s{begin / int8_unit, (end - begin + int8_unit - 1) / int8_unit, begin == 0, end == w.k};
        if (tile.row_end - tile.row_begin <= Bytes::Wide::block_rows)
            multiply_few<Bytes>(w, tile, rows, work, s, finish);
        else
            multiply_many<Bytes>(w, tile, rows, work, s, finish);
    }
#if defined(TALLOW_LEVEL_AMX)
    release_tiles();
#endif
}

}  // namespace

void add_int8_kernels(Kernels& table) {
    MatrixKernels& kernels = table.matrix[static_cast<int>(Storage::i8)];
    kernels.panel = panel_width;
    kernels.padding = int8_padding;
    kernels.unit_bytes = panel_width * int8_padding;
    kernels.block_rows = Bytes::Wide::block_rows;
    kernels.stretch = int8_stretch;
    kernels.row_bytes = row_bytes;
    kernels.scratch_bytes = scratch_bytes;
    kernels.pack = pack_int8;
    kernels.unpack = unpack_int8;
    kernels.quantize = quantize_rows;
    kernels.multiply = multiply;
}

}  // namespace tallow::TALLOW_LEVEL
