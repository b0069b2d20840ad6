// Storing keys and values in the form that attention reads.
#include "kernels/attention.h"
#include "kernels/simd.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

const float not_a_number = as_float(0x7fc00000);

TALLOW_INLINE void put(float* to, float x) { *to = x; }
TALLOW_INLINE void put(uint16_t* to, float x) { *to = float_to_f16(x); }
TALLOW_INLINE void put(float* to, F32 x) { store(to, x); }
TALLOW_INLINE void put(uint16_t* to, F32 x) { store_f16(to, x); }

// A whole panel: to[feature][key] = k[key][feature], four keys and features at a time.
template <typename T>
void store_panel(T* to, const float* k, int64_t stride, int64_t head_dim) {
    alignas(64) float turned[4][key_panel];
    int64_t i = 0;
    for (; i + 4 <= head_dim; i += 4) {
        for (int64_t key = 0; key < key_panel; key += 4) turn4(turned[0] + key, key_panel, k + key * stride + i, stride);
        for (int64_t row = 0; row < 4; ++row)
            for (int64_t key = 0; key < key_panel; key += width) put(to + (i + row) * key_panel + key, load(turned[row] + key));
    }
    for (; i < head_dim; ++i)
        for (int64_t key = 0; key < key_panel; ++key) put(to + i * key_panel + key, k[key * stride + i]);
}

template <typename T>
void store_positions(const StoreArgs& args, int64_t batch, int64_t head, int64_t begin, int64_t end) {
    const KeyValues& to = args.to;
    const int64_t head_dim = to.head_dim, row = (batch * to.heads + head) * to.capacity;
    const int64_t held = args.lengths ? args.lengths[batch] : 0, count = args.counts ? args.counts[batch] : args.n;
    const int64_t source = args.n - count - held;  // position p comes from n = source + p
    const float* k = args.k + batch * args.k_batch + source * args.k_position + head * args.k_head;
    const float* v = args.v + batch * args.v_batch + source * args.v_position + head * args.v_head;
    T* keys = static_cast<T*>(to.keys) + row * head_dim;
    T* values = static_cast<T*>(to.values) + row * to.padded;
    for (int64_t position = begin; position < end;) {
        T* panel = keys + position / key_panel * key_panel * head_dim;
        const float* key = k + position * args.k_position;
        if (position % key_panel == 0 && position + key_panel <= end) {
            store_panel(panel, key, args.k_position, head_dim);
            position += key_panel;
        } else {
            for (int64_t i = 0; i < head_dim; ++i) put(panel + i * key_panel + position % key_panel, key[i]);
            ++position;
        }
    }
    if (!args.lengths && end == args.n)  // nothing undefined in a panel that is computed with
        for (int64_t position = end; position % key_panel != 0; ++position)
            for (int64_t i = 0; i < head_dim; ++i)
                put(keys + (position / key_panel * head_dim + i) * key_panel + position % key_panel, 0.0f);
    for (int64_t position = begin; position < end; ++position) {
        const float* value = v + position * args.v_position;
        T* out = values + position * to.padded;
        int64_t i = 0;
        for (; i + width <= head_dim; i += width) put(out + i, load(value + i));
        for (; i < head_dim; ++i) put(out + i, value[i]);
        for (; i < to.padded; ++i) put(out + i, 0.0f);
    }
}

// Returns the scale. NaN and infinity make it NaN.
float quantize(int8_t* to, const float* x, int64_t n) {
    F32 most = set(0.0f), strange = set(0.0f);
    for (int64_t i = 0; i < n; i += width) {
        const F32 y = load_partial(x + i, n - i);
        most = max(max(y, set(0.0f) - y), most), strange = strange + (y - y);
    }
    const float highest = largest(most), inverse = 127.0f / highest;
    const bool finite = sum(strange) == 0.0f, tiny = !(highest > 1e-36f);
    for (int64_t i = 0; i < n; ++i)  // adding 1.5 · 2^23 rounds to a whole number, in the lowest bits
        to[i] = finite && !tiny ? static_cast<int8_t>(as_bits(x[i] * inverse + 12582912.0f)) : int8_t(0);
    return !finite ? not_a_number : tiny ? 0.0f : highest / 127.0f;
}

void quantize_positions(const StoreArgs& args, int64_t batch, int64_t head, int64_t begin, int64_t end) {
    const KeyValues& to = args.to;
    const int64_t head_dim = to.head_dim, row = (batch * to.heads + head) * to.capacity;
    const int64_t held = args.lengths ? args.lengths[batch] : 0, count = args.counts ? args.counts[batch] : args.n;
    const int64_t source = args.n - count - held;  // position p comes from n = source + p
    int8_t* keys = static_cast<int8_t*>(to.keys) + row * head_dim;
    int8_t* values = static_cast<int8_t*>(to.values) + row * to.padded;
    float* key_scales = to.scales + 2 * row;
    float* value_scales = key_scales + to.capacity;
    for (int64_t position = begin; position < end; ++position) {
        const int64_t from = source + position;
        int8_t key[widest_head];
        key_scales[position] =
            quantize(key, args.k + batch * args.k_batch + from * args.k_position + head * args.k_head, head_dim);
        int8_t* panel = keys + position / key_panel * key_panel * head_dim + position % key_panel;
        for (int64_t i = 0; i < head_dim; ++i) panel[i * key_panel] = key[i];
        int8_t* value = values + position * to.padded;
        value_scales[position] =
            quantize(value, args.v + batch * args.v_batch + from * args.v_position + head * args.v_head, head_dim);
        for (int64_t i = head_dim; i < to.padded; ++i) value[i] = 0;
    }
}

void store_key_values(const StoreArgs& args, int64_t batch, int64_t head, int64_t begin, int64_t end) {
    switch (args.to.kept) {
        case Kept::f32: return store_positions<float>(args, batch, head, begin, end);
        case Kept::f16: return store_positions<uint16_t>(args, batch, head, begin, end);
        case Kept::i8: return quantize_positions(args, batch, head, begin, end);
    }
}

}  // namespace

void add_key_values_kernels(Kernels& table) { table.store_key_values = store_key_values; }

}  // namespace tallow::TALLOW_LEVEL
