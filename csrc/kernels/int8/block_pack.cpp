// GGUF's blocks into panels, and single rows out of them. See int8/block_format.h.
#include "kernels/convert.h"
#include "kernels/int8/block_format.h"
#include "kernels/table.h"

#if !defined(TALLOW_LEVEL_AMX) && !TALLOW_INT8_I8MM

namespace tallow::TALLOW_LEVEL {

namespace {

constexpr uint32_t every = 0x01010101;  // times a byte: four of it

template <typename T>
TALLOW_INLINE void write(unsigned char* to, T value) {
    std::memcpy(to, &value, sizeof(T));
}

// Four bits, one to a byte.
TALLOW_INLINE uint32_t spread_bits(uint32_t bits) { return (bits & 15) * 0x204081 & every; }

// The low bits of the codes of inputs i to i + 3 of a block in a file, a byte each; i is a multiple of 4.
template <BlockFormat f>
TALLOW_INLINE uint32_t low_bits(const unsigned char* block, int i) {
    if constexpr (f.bits == 8) return read<uint32_t>(block + f.low + i) ^ every * f.zero;
    const unsigned char* low = block + f.low + i / (2 * f.run) * f.run + i % f.run;
    return read<uint32_t>(low) >> (i / f.run % 2 * 4) & every * 15;
}

// What lies above them in codes of 5 or 6 bits.
template <BlockFormat f>
TALLOW_INLINE uint32_t high_bits(const unsigned char* block, int i) {
    if constexpr (f.groups == 1) return spread_bits(read<uint32_t>(block + f.high) >> i);
    constexpr int bits = f.bits - 4, span = 256 / bits;  // 32 bytes hold the high bits of `span` codes
    return read<uint32_t>(block + f.high + i / span * 32 + i % 32) >> (i % span / 32 * bits) & every * ((1 << bits) - 1);
}

struct GroupScale {
    uint8_t s, t;
};

// Scale and minimum of a group of a K type: bytes, or six bits each, of which those of the last four groups are split.
template <BlockFormat f>
TALLOW_INLINE GroupScale file_scale(const unsigned char* block, int group) {
    const unsigned char* from = block + f.scales + group;
    if constexpr (!f.minima) return {*from, 0};
    if (group < 4) return {uint8_t(from[0] & 63), uint8_t(from[4] & 63)};
    return {uint8_t((from[4] & 15) | (from[-4] >> 6) << 4), uint8_t(from[4] >> 4 | (from[0] >> 6) << 4)};
}

// One block of one feature to its place among its neighbours'.
template <BlockFormat f>
void place_block(const unsigned char* block, unsigned char* to, int64_t feature) {
    write(to + feature * 2, read<uint16_t>(block + f.d));
    if constexpr (f.minima) {
        const uint16_t m = read<uint16_t>(block + f.m);
        write(to + (panel_width + feature) * 2, uint16_t(f.groups > 1 ? m ^ 0x8000 : m));
    }
    to += header_bytes(f);
    for (int g = 0; g < f.groups; ++g) {
        const int first = g * f.group, half = f.group / 2;
        for (int i = 0; i < low_words(f); ++i) {
            uint32_t low;
            if constexpr (f.bits < 8 && f.run == half)
                low = read<uint32_t>(block + f.low + 4 * i);  // a file's halves of bytes are those of a panel
            else if constexpr (f.bits < 8)
                low = low_bits<f>(block, first + 4 * i) | low_bits<f>(block, first + half + 4 * i) << 4;
            else
                low = low_bits<f>(block, first + 4 * i);
            write(to + i * word_bytes + feature * 4, low);
        }
        if constexpr (f.bits > 4 && f.bits < 8) {
            uint32_t high = 0;
            for (int i = 0; i < words(f); ++i) high |= high_bits<f>(block, first + 4 * i) << i * (f.bits - 4);
            write(to + low_words(f) * word_bytes + feature * 4, high);
        }
        if constexpr (f.groups > 1) {
            const GroupScale scale = file_scale<f>(block, g);
            to[code_bytes(f) + feature] = scale.s;
            if constexpr (f.minima) to[code_bytes(f) + panel_width + feature] = scale.t;
        }
        to += group_bytes(f);
    }
}

template <BlockFormat f>
void pack_blocks(const PackArgs& args, int64_t panel_begin, int64_t panel_end) {
    const PackedMatrix& m = *args.matrix;
    const int64_t blocks = m.k / (f.group * f.groups);
    for (int64_t p = panel_begin; p < panel_end; ++p) {
        const int64_t features = smaller(panel_width, m.n - p * panel_width);
        const unsigned char* const* rows = args.rows + p * panel_width;
        unsigned char* to = m.panels + p * m.panel_bytes;
        if (features < panel_width) std::memset(to, 0, m.panel_bytes);
        for (int64_t b = 0; b < blocks; ++b)
            for (int64_t i = 0; i < features; ++i)
                place_block<f>(rows[i] + b * f.bytes, to + b * block_bytes(f), i);
    }
}

template <BlockFormat f>
TALLOW_INLINE uint32_t panel_codes(const unsigned char* group, int word, int64_t feature) {
    const unsigned char* low = group + word % low_words(f) * word_bytes + feature * 4;
    if constexpr (f.bits == 8) return read<uint32_t>(low);
    uint32_t codes = read<uint32_t>(low) >> (word < low_words(f) ? 0 : 4) & every * 15;
    if constexpr (f.bits > 4 && f.bits < 8) {
        const uint32_t high = read<uint32_t>(group + low_words(f) * word_bytes + feature * 4);
        codes |= (high >> word * (f.bits - 4) & every * ((1 << (f.bits - 4)) - 1)) << 4;
    }
    return codes;
}

// What a code says: 8 bits are a signed number, in which adding 128 turns the highest.
template <BlockFormat f>
TALLOW_INLINE float number(uint8_t code) {
    if constexpr (f.bits == 8) return float(static_cast<int8_t>(code ^ f.zero));
    return float(int(code) - f.zero);
}

template <BlockFormat f>
void unpack_blocks(const PackedMatrix& m, int64_t row, float* out) {
    const int64_t feature = row % panel_width;
    const unsigned char* from = m.panels + row / panel_width * m.panel_bytes;
    for (int64_t b = 0; b < m.k / (f.group * f.groups); ++b) {
        const float d = f16_to_float(read<uint16_t>(from + feature * 2));
        const float least = f.minima ? f16_to_float(read<uint16_t>(from + (panel_width + feature) * 2)) : 0.0f;
        from += header_bytes(f);
        for (int g = 0; g < f.groups; ++g, from += group_bytes(f)) {
            const unsigned char* scales = from + code_bytes(f) + feature;
            const float scale = f.groups > 1 ? d * float(static_cast<int8_t>(scales[0])) : d;
            const float minimum = f.groups > 1 && f.minima ? least * float(scales[panel_width]) : least;
            for (int word = 0; word < words(f); ++word) {
                const uint32_t codes = panel_codes<f>(from, word, feature);
                for (int i = 0; i < 4; ++i) {
                    const float value = scale * number<f>(uint8_t(codes >> 8 * i));
                    *out++ = f.minima ? value + minimum : value;
                }
            }
        }
    }
}

template <int index>
void add(Kernels& table) {
    constexpr BlockFormat f = block_formats[index];
    MatrixKernels& kernels = table.matrix[static_cast<int>(f.storage)];
    kernels.panel = panel_width;
    kernels.padding = f.group * f.groups;
    kernels.unit_bytes = block_bytes(f);
    kernels.group = f.group;
    kernels.source_bytes = f.bytes;
    kernels.pack = pack_blocks<f>;
    kernels.unpack = unpack_blocks<f>;
    if constexpr (index + 1 < block_format_count) add<index + 1>(table);
}

}  // namespace

void add_block_packing(Kernels& table) { add<0>(table); }

}  // namespace tallow::TALLOW_LEVEL

#endif
