// Weights into panels of bytes, quantised on the way unless they come as bytes, and single rows out of them.
#include "kernels/convert.h"
#include "kernels/int8/int8.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

constexpr int64_t chunk = 256;
constexpr uint8_t flip = weight_offset == 128 ? 0x80 : 0;  // adds 128 to a byte, in effect

TALLOW_INLINE int64_t padded(int64_t k) { return (k + int8_padding - 1) / int8_padding * int8_padding; }

TALLOW_INLINE unsigned char* place(unsigned char* panel, int64_t feature, int64_t input) {
    return panel + (input / int8_unit * panel_width + feature) * int8_unit + input % int8_unit;
}

// Inputs [begin, begin + n) of a feature, begin a multiple of the unit; the last unit is filled up with zeros.
TALLOW_INLINE void scatter(unsigned char* panel, int64_t feature, int64_t begin, int64_t n, const int8_t* values) {
    for (int64_t i = 0; i < n; i += int8_unit) {
        unsigned char* to = place(panel, feature, begin + i);
        for (int64_t j = 0; j < int8_unit; ++j) to[j] = static_cast<uint8_t>(i + j < n ? values[i + j] : 0) ^ flip;
    }
}

TALLOW_INLINE void round_to_bytes(const float* x, int64_t n, float scale, int8_t* to) {
    const F32 divisor = set(scale);
    for (int64_t i = 0; i < n; i += width) narrow_to(to + i, to_int(load(x + i) / divisor));
}

void pack_floats(const PackArgs& args, int64_t row, unsigned char* panel, float* scales) {
    const PackedMatrix& m = *args.matrix;
    float x[chunk + width];
    int8_t values[chunk + width];
    for (int64_t g = 0; g * m.group < m.k; ++g) {
        const int64_t begin = g * m.group, end = begin + m.group;
        int32_t bits = 0;
        for (int64_t i = begin; i < end; i += chunk) {
            const int64_t n = smaller(chunk, end - i);
            read_floats(args, row, i, n, x);
            const int32_t found = largest_bits(x, n);
            bits = found > bits ? found : bits;
        }
        const Scale scale = scale_for(bits);
        scales[g * panel_width] = scale.scale;
        for (int64_t i = begin; i < end; i += chunk) {
            const int64_t n = smaller(chunk, end - i);
            if (scale.inverse != 0) {
                read_floats(args, row, i, n, x);
                round_to_bytes(x, n, scale.scale, values);
            } else {
                std::memset(values, 0, sizeof(values));
            }
            scatter(panel, row % panel_width, i, n, values);
        }
    }
}

void pack_bytes(const PackArgs& args, int64_t row, unsigned char* panel, float* scales) {
    const PackedMatrix& m = *args.matrix;
    const int64_t groups = m.k ? m.k / m.group : 1;
    for (int64_t g = 0; g < groups; ++g) scales[g * panel_width] = args.scales[row * groups + g];
    const int8_t* from = static_cast<const int8_t*>(args.source) + row * args.row_stride;
    int8_t values[chunk];
    for (int64_t i = 0; i < m.k; i += chunk) {
        const int64_t n = smaller(chunk, m.k - i);
        for (int64_t j = 0; j < n; ++j) values[j] = from[(i + j) * args.column_stride];
        scatter(panel, row % panel_width, i, n, values);
    }
}

}  // namespace

void pack_int8(const PackArgs& args, int64_t panel_begin, int64_t panel_end) {
    const PackedMatrix& m = *args.matrix;
    const int64_t groups = m.k ? m.k / m.group : 1;
    for (int64_t p = panel_begin; p < panel_end; ++p) {
        unsigned char* panel = m.panels + p * m.panel_bytes;
        float* scales = m.scales + p * groups * panel_width;
        const int64_t from = m.k / int8_unit * int8_unit;  // whole units are written below
        std::memset(panel + from * panel_width, flip, (padded(m.k) - from) * panel_width);
        for (int64_t f = 0; f < panel_width; ++f) {
            const int64_t row = p * panel_width + f;
            if (row >= m.n)
                for (int64_t i = 0; i < padded(m.k); i += int8_unit) std::memset(place(panel, f, i), flip, int8_unit);
            else if (args.from == Storage::i8)
                pack_bytes(args, row, panel, scales + f);
            else
                pack_floats(args, row, panel, scales + f);
        }
    }
}

void unpack_int8(const PackedMatrix& m, int64_t row, float* out) {
    unsigned char* panel = m.panels + row / panel_width * m.panel_bytes;
    const float* scales = m.scales + row / panel_width * (m.k ? m.k / m.group : 1) * panel_width + row % panel_width;
    for (int64_t i = 0; i < m.k; ++i) {
        const int8_t value = static_cast<int8_t>(*place(panel, row % panel_width, i) ^ flip);
        out[i] = float(value) * scales[i / m.group * panel_width];
    }
}

}  // namespace tallow::TALLOW_LEVEL
