// Activations into int8: symmetric, with a scale for each row or each group of its inputs.
#include "kernels/int8/arithmetic.h"
#include "kernels/int8/int8.h"
#include "kernels/rows.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

// Writes inputs [begin, begin + n) of a row as x · inverse, rounded to even, and gives their sum.
template <typename T>
TALLOW_INLINE int32_t write_values(const float* x, int64_t n, float inverse, T* to) {
    I32 total = set_i32(0);
    const F32 factor = set(inverse);
    int64_t i = 0;
    for (; i + width <= n; i += width) {
        const I32 values = to_int(load(x + i) * factor);
        narrow_to(to + i, values);
        total = total + values;
    }
    if (i < n) {  // the row has room for a whole vector
        const I32 values = to_int(load_partial(x + i, n - i) * factor);
        narrow_to(to + i, values);
        total = total + values;
    }
    return sum(total);
}

template <typename T>
TALLOW_INLINE T* values_at(const QuantizedRows& to, int64_t row, int64_t input) {
    unsigned char* start = to.values + (input / stretch_of<T> * to.rows + row) * row_bytes;
    return reinterpret_cast<T*>(start) + input % stretch_of<T>;
}

template <typename T>
void quantize_group(const float* x, int64_t begin, int64_t n, const QuantizedRows& to, int64_t row, int64_t group) {
    const Scale scale = scale_for(largest_bits(x + begin, n));
    int32_t total = 0;
    for (int64_t i = begin; i < begin + n;) {
        const int64_t count = smaller(begin + n - i, stretch_of<T> - i % stretch_of<T>);
        T* values = values_at<T>(to, row, i);
        if (scale.inverse != 0)
            total += write_values(x + i, count, scale.inverse, values);
        else
            std::memset(values, 0, count * sizeof(T));
        i += count;
    }
    to.scales[row * to.groups + group] = scale.scale;
    to.sums[row * to.groups + group] = total;
}

template <typename T>
void quantize(const LinearArgs& args, const QuantizedRows& to, int64_t row_begin, int64_t row_end, void* scratch) {
    const int64_t k = args.weight->k, group = args.weight->group;
    for (int64_t row = row_begin; row < row_end; ++row) {
        const float* x = args.x.data + row * args.x.stride;
        if (args.x.windowed) {
            float* whole = static_cast<float*>(scratch);
            copy_row(args.x, row, 0, k, whole);
            x = whole;
        }
        for (int64_t g = 0; g < to.groups; ++g) quantize_group<T>(x, g * group, group, to, row, g);
        // What fills up the last stretch to a whole step is multiplied too.
        const int64_t filled = (k + int8_padding - 1) / int8_padding * int8_padding;
        if (k < filled) std::memset(values_at<T>(to, row, k - 1) + 1, 0, (filled - k) * sizeof(T));
    }
}

}  // namespace

void quantize_rows(const LinearArgs& args, const QuantizedRows& to, int64_t row_begin, int64_t row_end, void* scratch) {
    quantize<Quantized>(args, to, row_begin, row_end, scratch);
}

void quantize_to_bytes(const LinearArgs& args, const QuantizedRows& to, int64_t row_begin, int64_t row_end,
                       void* scratch) {
    quantize<int8_t>(args, to, row_begin, row_end, scratch);
}

}  // namespace tallow::TALLOW_LEVEL
