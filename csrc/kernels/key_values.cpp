// Storing keys and values in the form that attention reads.
#include "kernels/attention.h"
#include "kernels/simd.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

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

void store_key_values(const StoreArgs& args, int64_t batch, int64_t head, int64_t begin, int64_t end) {
    if (args.to.half)
        store_positions<uint16_t>(args, batch, head, begin, end);
    else
        store_positions<float>(args, batch, head, begin, end);
}

}  // namespace

void add_key_values_kernels(Kernels& table) { table.store_key_values = store_key_values; }

}  // namespace tallow::TALLOW_LEVEL
