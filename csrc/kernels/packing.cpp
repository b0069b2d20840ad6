// Packing weights into panels of floats, and reading single rows out of them.
#include "kernels/convert.h"
#include "kernels/product.h"
#include "kernels/rows.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

// Inputs taken at once: a cache line of each row, and a stretch of the panel that stays in the first cache.
constexpr int64_t chunk = 32;

template <Storage storage>
TALLOW_INLINE uint16_t narrow(float value) {
    return storage == Storage::f16 ? float_to_f16(value) : float_to_bf16(value);
}

// A stretch of one row of floats into its column of the panel.
template <Storage storage>
TALLOW_INLINE void scatter(unsigned char* to, const float* from, int64_t n) {
    if constexpr (storage == Storage::f32) {
        float* out = reinterpret_cast<float*>(to);
        for (int64_t i = 0; i < n; ++i) out[i * panel_width] = from[i];
    } else {
        uint16_t* out = reinterpret_cast<uint16_t*>(to);
        for (int64_t i = 0; i < n; ++i) out[i * panel_width] = narrow<storage>(from[i]);
    }
}

template <Storage storage>
void pack(const PackArgs& args, int64_t panel_begin, int64_t panel_end) {
    const PackedMatrix& m = *args.matrix;
    constexpr int64_t size = storage == Storage::f32 ? 4 : 2;
    float values[chunk];
    for (int64_t p = panel_begin; p < panel_end; ++p) {
        unsigned char* panel = m.panels + p * m.panel_bytes;
        for (int64_t k = 0; k < m.k; k += chunk) {
            const int64_t n = smaller(chunk, m.k - k);
            unsigned char* to = panel + k * panel_width * size;
            for (int64_t f = 0; f < panel_width; ++f) {
                const int64_t row = p * panel_width + f;
                if (row < m.n)
                    read_floats(args, row, k, n, values);
                else
                    std::memset(values, 0, sizeof(values));
                scatter<storage>(to + f * size, values, n);
            }
        }
    }
}

template <Storage storage>
void unpack(const PackedMatrix& m, int64_t row, float* out) {
    const unsigned char* panel = m.panels + row / panel_width * m.panel_bytes;
    for (int64_t k = 0; k < m.k; ++k) {
        const int64_t index = k * panel_width + row % panel_width;
        if constexpr (storage == Storage::f32)
            out[k] = reinterpret_cast<const float*>(panel)[index];
        else
            out[k] = widen<storage>(reinterpret_cast<const uint16_t*>(panel)[index]);
    }
}

template <Storage storage>
void add(Kernels& table) {
    table.matrix[static_cast<int>(storage)].pack = pack<storage>;
    table.matrix[static_cast<int>(storage)].unpack = unpack<storage>;
}

}  // namespace

void add_packing_kernels(Kernels& table) {
    add<Storage::f32>(table);
    add<Storage::f16>(table);
    add<Storage::bf16>(table);
}

}  // namespace tallow::TALLOW_LEVEL
