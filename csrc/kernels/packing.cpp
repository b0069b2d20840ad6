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

// Four rows of four 16-bit numbers, turned: number i of every row goes to to[i * panel_width].
TALLOW_INLINE void turn(const unsigned char* from, int64_t row_bytes, uint16_t* to) {
    constexpr uint64_t even = 0x0000ffff0000ffff, low = 0x00000000ffffffff;
    uint64_t rows[4];
    for (int i = 0; i < 4; ++i) rows[i] = read_element<uint64_t>(from + i * row_bytes);
    uint64_t pairs[2][2];  // [of rows][numbers 0 and 2, or 1 and 3]
    for (int i = 0; i < 2; ++i) {
        pairs[i][0] = (rows[2 * i] & even) | (rows[2 * i + 1] & even) << 16;
        pairs[i][1] = (rows[2 * i] >> 16 & even) | (rows[2 * i + 1] & ~even);
    }
    for (int i = 0; i < 2; ++i) {
        const uint64_t first = (pairs[0][i] & low) | pairs[1][i] << 32, third = pairs[0][i] >> 32 | (pairs[1][i] & ~low);
        std::memcpy(to + i * panel_width, &first, sizeof(first));
        std::memcpy(to + (i + 2) * panel_width, &third, sizeof(third));
    }
}

// A whole panel of 16-bit numbers that stay as they are.
void pack_halves(const unsigned char* from, int64_t row_bytes, int64_t k, uint16_t* panel) {
    static_assert(panel_width % 4 == 0);
    for (int64_t begin = 0; begin < k; begin += chunk) {
        const int64_t end = smaller(begin + chunk, k), fours = begin + (end - begin) / 4 * 4;
        for (int64_t f = 0; f < panel_width; f += 4) {
            const unsigned char* rows = from + f * row_bytes;
            for (int64_t i = begin; i < fours; i += 4) turn(rows + i * 2, row_bytes, panel + i * panel_width + f);
            for (int64_t i = fours; i < end; ++i)
                for (int64_t row = 0; row < 4; ++row)
                    panel[i * panel_width + f + row] = read_element<uint16_t>(rows + row * row_bytes + i * 2);
        }
    }
}

template <Storage storage>
void pack(const PackArgs& args, int64_t panel_begin, int64_t panel_end) {
    const PackedMatrix& m = *args.matrix;
    constexpr int64_t size = storage == Storage::f32 ? 4 : 2;
    const bool halves = size == 2 && args.from == storage && args.column_stride == 1;
    float values[chunk];
    for (int64_t p = panel_begin; p < panel_end; ++p) {
        unsigned char* panel = m.panels + p * m.panel_bytes;
        if (halves && (p + 1) * panel_width <= m.n) {
            const int64_t row_bytes = args.row_stride * 2;
            const auto* from = static_cast<const unsigned char*>(args.source) + p * panel_width * row_bytes;
            pack_halves(from, row_bytes, m.k, reinterpret_cast<uint16_t*>(panel));
            continue;
        }
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
