// Products with weights stored as floats of 32 or 16 bits.
#include "kernels/finish.h"
#include "kernels/product.h"
#include "kernels/rows.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

template <Storage storage>
struct Floats {
    using Sum = F32;
    using Weights = F32;
    using Wide = Floats<Storage::f32>;
    static constexpr int step_bytes = 4, element_bytes = storage == Storage::f32 ? 4 : 2;
    static constexpr int vector_bytes = width * element_bytes;
    static constexpr int block_rows = tallow::TALLOW_LEVEL::block_rows, most_panels = most_panels_at_once;

    TALLOW_INLINE F32 zero() { return set(0.0f); }
    TALLOW_INLINE F32 load_sums(const int32_t* p) { return load(reinterpret_cast<const float*>(p)); }
    TALLOW_INLINE void store_sums(int32_t* p, F32 sums) { store(reinterpret_cast<float*>(p), sums); }
    TALLOW_INLINE F32 load_weights(const unsigned char* p) {
        if constexpr (storage == Storage::f16) return load_f16(reinterpret_cast<const uint16_t*>(p));
        if constexpr (storage == Storage::bf16) return load_bf16(reinterpret_cast<const uint16_t*>(p));
        return load(reinterpret_cast<const float*>(p));
    }
    TALLOW_INLINE void widen(const unsigned char* from, unsigned char* to) {
        store(reinterpret_cast<float*>(to), load_weights(from));
    }
    TALLOW_INLINE F32 broadcast(const unsigned char* x) { return set(*reinterpret_cast<const float*>(x)); }
    TALLOW_INLINE F32 multiply_add(F32 x, F32 w, F32 sums) { return fma(x, w, sums); }
    static Block pick(int64_t rows, int64_t panels) { return pick_block<Floats, block_rows>(rows, panels); }
};

constexpr int64_t stretch = stretch_bytes / 4;

std::size_t scratch_bytes(const LinearArgs&, const Tile& tile) {
    return std::size_t((tile.row_end - tile.row_begin) * row_bytes + widened_bytes + sums_bytes(tile));
}

template <Storage storage>
void multiply(const LinearArgs& args, const QuantizedRows*, const Tile& tile, void* scratch) {
    using A = Floats<storage>;
    const PackedMatrix& w = *args.weight;
    const int64_t rows = tile.row_end - tile.row_begin;
    unsigned char* x = static_cast<unsigned char*>(scratch);
    const Work work{x + rows * row_bytes, reinterpret_cast<int32_t*>(x + rows * row_bytes + widened_bytes)};
    auto finish = [&](const int32_t* sums, int64_t row, int64_t count, int64_t panel) {
        finish_panel(args, FloatSums{reinterpret_cast<const float*>(sums)}, tile.row_begin + row, count, panel);
    };
    if (rows == 1 && !args.x.windowed) {
        const float* row = args.x.data + tile.row_begin * args.x.stride;
        return multiply_few<A>(w, tile, reinterpret_cast<const unsigned char*>(row), work, {0, w.k, true, true}, finish);
    }
    const int64_t stretches = larger(1, (w.k + stretch - 1) / stretch);
    for (int64_t i = 0, begin = 0; i < stretches; ++i) {
        const int64_t inputs = w.k / stretches + (i < w.k % stretches);
        for (int64_t r = 0; r < rows; ++r)
            copy_row(args.x, tile.row_begin + r, begin, inputs, reinterpret_cast<float*>(x + r * row_bytes));
        const Stretch s{begin, inputs, i == 0, i + 1 == stretches};
        if (rows <= block_rows)
            multiply_few<A>(w, tile, x, work, s, finish);
        else
            multiply_many<A>(w, tile, x, work, s, finish);
        begin += inputs;
    }
}

template <Storage storage>
void add(Kernels& table) {
    MatrixKernels& kernels = table.matrix[static_cast<int>(storage)];
    kernels.panel = panel_width;
    kernels.padding = 1;
    kernels.unit_bytes = panel_width * Floats<storage>::element_bytes;
    kernels.block_rows = block_rows;
    kernels.scratch_bytes = scratch_bytes;
    kernels.multiply = multiply<storage>;
}

}  // namespace

void add_linear_kernels(Kernels& table) {
    add<Storage::f32>(table);
    add<Storage::f16>(table);
    add<Storage::bf16>(table);
    add_packing_kernels(table);
}

}  // namespace tallow::TALLOW_LEVEL
