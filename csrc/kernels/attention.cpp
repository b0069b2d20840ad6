#include "kernels/attention.h"

#include "kernels/attention_tiles.h"
#include "kernels/simd.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

// The places of a tile's numbers in its scratch memory.
struct Work {
    float* q;        // scaled queries, [register tile][feature][row]
    float* out;      // [row][padded], not yet divided by the sums
    float* weights;  // [row][key_block]: scores, then weights
    float* keys;     // a block of keys and of values, widened to float32
    float* values;
    Running* running;  // [row]
    int64_t* seen;     // [row] how many keys it may see
    int64_t bytes;
};

TALLOW_INLINE Work lay_out(const KeyValues& kv, int64_t rows, void* scratch) {
    int64_t used = 0;
    auto take = [&](int64_t bytes) {
        char* place = static_cast<char*>(scratch) + used;
        used += (bytes + 63) / 64 * 64;
        return place;
    };
    Work work;
    work.q = reinterpret_cast<float*>(take(rows * kv.head_dim * 4));
    work.out = reinterpret_cast<float*>(take(rows * kv.padded * 4));
    work.weights = reinterpret_cast<float*>(take(rows * key_block * 4));
    const int64_t widened = kv.kept == Kept::f32 ? 0 : key_block * 4;
    work.keys = reinterpret_cast<float*>(take(widened * kv.head_dim));
    work.values = reinterpret_cast<float*>(take(widened * kv.padded));
    work.running = reinterpret_cast<Running*>(take(rows * int64_t(sizeof(Running))));
    work.seen = reinterpret_cast<int64_t*>(take(rows * 8));
    work.bytes = used;
    return work;
}

void widen(float* to, const uint16_t* from, int64_t n) {  // n is a multiple of the width
    for (int64_t i = 0; i < n; i += width) store(to + i, load_f16(from + i));
}

// Whole panels of keys.
void widen_keys(float* to, const int8_t* from, const float* scales, int64_t count, int64_t head_dim) {
    for (int64_t key = 0; key < count; key += key_panel)
        for (int64_t i = 0; i < head_dim; ++i, to += key_panel, from += key_panel)
            for (int64_t j = 0; j < key_panel; j += width) store(to + j, load_i8(from + j) * load(scales + key + j));
}

void widen_values(float* to, const int8_t* from, const float* scales, int64_t count, int64_t padded) {
    for (int64_t position = 0; position < count; ++position, to += padded, from += padded) {
        const F32 scale = set(scales[position]);
        for (int64_t i = 0; i < padded; i += width) store(to + i, load_i8(from + i) * scale);
    }
}

// A block's keys and values in float32, of `count` positions from one of the tile's head.
void widen_block(const KeyValues& kv, const Work& work, int64_t head, int64_t first, int64_t count) {
    const int64_t at = head * kv.capacity + first;
    if (kv.kept == Kept::f16) {
        widen(work.keys, static_cast<const uint16_t*>(kv.keys) + at * kv.head_dim, count * kv.head_dim);
        widen(work.values, static_cast<const uint16_t*>(kv.values) + at * kv.padded, count * kv.padded);
    } else {
        const float* scales = kv.scales + 2 * head * kv.capacity + first;
        widen_keys(work.keys, static_cast<const int8_t*>(kv.keys) + at * kv.head_dim, scales, count, kv.head_dim);
        widen_values(work.values, static_cast<const int8_t*>(kv.values) + at * kv.padded, scales + kv.capacity, count,
                     kv.padded);
    }
}

// What the queries of a tile need to know before the first key.
void begin_rows(const AttentionArgs& args, const QueryTile& tile, const Work& work) {
    const int64_t group = args.heads / args.kv.heads, head_dim = args.kv.head_dim, rows = tile.end - tile.begin;
    int64_t held = args.keys;
    if (args.lengths) held = larger(0, smaller(held, args.lengths[tile.batch]));
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t query = (tile.begin + r) / group, head = tile.kv_head * group + (tile.begin + r) % group;
        const int64_t first = r / tile_rows * tile_rows, beside = smaller(tile_rows, rows - first);
        const float* q = args.q + tile.batch * args.q_batch + query * args.q_position + head * args.q_head;
        float* packed = work.q + first * head_dim + (r - first);
        for (int64_t i = 0; i < head_dim; ++i) packed[i * beside] = q[i] * args.scale;
        for (int64_t i = 0; i < args.kv.padded; i += width) store(work.out + r * args.kv.padded + i, set(0.0f));
        work.running[r].highest = minus_infinity;
        store(work.running[r].sum, set(0.0f));
        work.seen[r] = args.causal ? larger(0, held - (args.n - 1 - query)) : held;
    }
}

// Divides by the sums; a row that saw no key has sum 0 and stays zeros.
void end_rows(const AttentionArgs& args, const QueryTile& tile, const Work& work) {
    const int64_t group = args.heads / args.kv.heads, head_dim = args.kv.head_dim;
    for (int64_t r = 0; r < tile.end - tile.begin; ++r) {
        const int64_t query = (tile.begin + r) / group, head = tile.kv_head * group + (tile.begin + r) % group;
        const float total = sum(load(work.running[r].sum));
        const F32 divisor = set(total == 0.0f ? 1.0f : total);
        float* out = args.out + ((tile.batch * args.n + query) * args.heads + head) * head_dim;
        for (int64_t i = 0; i < head_dim; i += width)
            store_partial(out + i, load(work.out + r * args.kv.padded + i) / divisor, head_dim - i);
    }
}

// The keys of a block that a row sees, counted from the block's first.
struct Sight {
    int64_t begin, end;
};

// Rows see ever further, and with a window their first keys move on as well.
TALLOW_INLINE Sight sight_of(const AttentionArgs& args, const Work& work, int64_t row, int64_t block) {
    const int64_t begin = larger(0, work.seen[row] - args.window - block);
    return {begin, larger(begin, smaller(key_block, work.seen[row] - block))};
}

// For rows that see different keys of a block. The value of a key that a row doesn't see is kept away from it: 0 · NaN would
// reach its sum.
template <typename T>
void mix_unlike_rows(const AttentionArgs& args, const Work& work, int64_t first, int64_t rows, const T* values,
                     int64_t block) {
    const int64_t padded = args.kv.padded;
    alignas(64) float chains[tile_rows * widest_head];
    for (int64_t i = 0; i < rows * padded; i += width) store(chains + i, set(0.0f));
    const float* weights = work.weights + first * key_block;
    const int64_t begin = sight_of(args, work, first + rows - 1, block).begin;  // of what all see
    const int64_t end = larger(begin, sight_of(args, work, first, block).end);
    const auto go_on = [&](int64_t r, int64_t from, int64_t to) {
        if (from < to) mix<T>(1, chains + r * padded, weights + r * key_block, values, padded, from, to, true);
    };
    for (int64_t r = 0; r < rows; ++r) {
        const Sight sight = sight_of(args, work, first + r, block);
        go_on(r, sight.begin, smaller(begin, sight.end));
    }
    if (begin < end) mix<T>(rows, chains, weights, values, padded, begin, end, true);
    for (int64_t r = 0; r < rows; ++r) {
        const Sight sight = sight_of(args, work, first + r, block);
        go_on(r, larger(end, sight.begin), sight.end);
    }
    float* out = work.out + first * padded;
    for (int64_t i = 0; i < rows * padded; i += width) store(out + i, load(out + i) + load(chains + i));
}

// One block of keys, which starts at `block`, for all rows that see some of it.
template <typename T>
void attend_block(const AttentionArgs& args, const QueryTile& tile, const Work& work, const T* keys, const T* values,
                  int64_t block) {
    const int64_t group = args.heads / args.kv.heads, rows = tile.end - tile.begin;
    const int64_t head_dim = args.kv.head_dim, padded = args.kv.padded;
    for (int64_t first = 0; first < rows; first += tile_rows) {
        const int64_t beside = smaller(tile_rows, rows - first);
        const int64_t count = smaller(key_block, work.seen[first + beside - 1] - block);  // rows see ever more keys
        if (count <= 0 || work.seen[first] - args.window >= block + key_block) continue;
        const int64_t columns = (count + key_panel - 1) / key_panel * key_panel;
        float* weights = work.weights + first * key_block;
        scores<T>(beside, weights, work.q + first * head_dim, keys, head_dim, columns);
        for (int64_t r = first; r < first + beside; ++r) {
            const int64_t seen = work.seen[r] - block, from = seen - args.window;
            if (args.mask || seen < columns || from > 0) {
                const int64_t query = (tile.begin + r) / group, head = tile.kv_head * group + (tile.begin + r) % group;
                const float* mask = !args.mask ? nullptr
                                               : args.mask + tile.batch * args.mask_batch + head * args.mask_head +
                                                     query * args.mask_query + block;
                hide_keys(work.weights + r * key_block, columns, from, seen, mask);
            }
            soften(work.weights + r * key_block, columns, work.running[r], work.out + r * padded, padded);
        }
    }
    for (int64_t first = 0; first < rows; first += tile_rows) {
        const int64_t beside = smaller(tile_rows, rows - first);
        const Sight sight = sight_of(args, work, first, block), last = sight_of(args, work, first + beside - 1, block);
        if (last.end <= 0 || sight.begin >= key_block) continue;
        const float* weights = work.weights + first * key_block;
        float* out = work.out + first * padded;
        if (sight.begin == last.begin && sight.end == last.end)
            mix<T>(beside, out, weights, values, padded, sight.begin, sight.end, false);
        else
            mix_unlike_rows<T>(args, work, first, beside, values, block);
    }
}

void attend(const AttentionArgs& args, const QueryTile& tile, void* scratch) {
    const KeyValues& kv = args.kv;
    const int64_t rows = tile.end - tile.begin;
    const Work work = lay_out(kv, rows, scratch);
    begin_rows(args, tile, work);
    const int64_t head = tile.batch * kv.heads + tile.kv_head, end = work.seen[rows - 1];
    const auto stored = [&](auto type, int64_t block) {  // read as they are
        using T = decltype(type);
        const int64_t at = head * kv.capacity + block;
        attend_block(args, tile, work, static_cast<const T*>(kv.keys) + at * kv.head_dim,
                     static_cast<const T*>(kv.values) + at * kv.padded, block);
    };
    const int64_t begin = larger(0, work.seen[0] - args.window);  // blocks before it are not read
    for (int64_t block = begin / key_block * key_block; block < end; block += key_block) {
        if (kv.kept == Kept::f32) {
            stored(float(), block);
        } else if (kv.kept == Kept::f16 && rows <= tile_rows) {
            stored(uint16_t(), block);
        } else {
            widen_block(kv, work, head, block, (smaller(key_block, end - block) + key_panel - 1) / key_panel * key_panel);
            attend_block<float>(args, tile, work, work.keys, work.values, block);
        }
    }
    end_rows(args, tile, work);
}

int64_t scratch_bytes(const KeyValues& kv, int64_t rows) { return lay_out(kv, rows, nullptr).bytes; }

}  // namespace

void add_attention_kernels(Kernels& table) {
    table.attend = attend;
    table.attention_scratch = scratch_bytes;
}

}  // namespace tallow::TALLOW_LEVEL
