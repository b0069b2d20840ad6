// Attention (Vaswani et al. 2017) by online softmax (Milakov and Gimelshein 2018) over blocks of keys.
#pragma once

#include <cstdint>

namespace tallow {

constexpr std::int64_t key_panel = 16;     // keys side by side in a panel
constexpr std::int64_t key_block = 64;     // keys from one update of the running softmax to the next
constexpr int query_rows = 6;              // queries in a register tile
constexpr std::int64_t widest_head = 256;  // features
constexpr std::int64_t no_window = std::int64_t{1} << 62;  // wider than any row

// How keys and values are stored. int8: each key and each value of a head has a scale, its largest feature over 127.
enum class Kept : std::uint8_t { f32, f16, i8 };

// Keys and values as the kernels read them: keys[row][head][panel][head_dim][16], and
// values[row][head][position][padded] with zeros behind head_dim. For int8 scales[row][head][2][position]: of keys, of values.
struct KeyValues {
    void* keys;
    void* values;
    float* scales;
    std::int64_t heads, head_dim;
    std::int64_t padded;    // head_dim, up to a multiple of 16
    std::int64_t capacity;  // positions that there is room for in a row, a multiple of key_panel
    Kept kept;
};

// Keys and values (batch, n, heads, head_dim) to be put behind the positions that each row holds.
struct StoreArgs {
    KeyValues to;
    const float* k;
    const float* v;
    std::int64_t batch, n;
    std::int64_t k_batch, k_position, k_head;  // floats from one to the next
    std::int64_t v_batch, v_position, v_head;
    const std::int64_t* lengths;  // (batch) positions held before, or nullptr for none
    const std::int64_t* counts;   // (batch) how many of the last of n are stored, or nullptr for all
};

// Queries (batch, n, heads, head_dim) over keys and values; out is contiguous.
struct AttentionArgs {
    float* out;
    const float* q;
    KeyValues kv;
    std::int64_t batch, n, heads;
    std::int64_t keys;                         // positions that hold a key, unless lengths says fewer
    std::int64_t q_batch, q_position, q_head;  // floats from one to the next
    const std::int64_t* lengths;               // (batch), or nullptr
    const float* mask;                         // added to the scores, keys adjacent; or nullptr
    std::int64_t mask_batch, mask_head, mask_query;  // floats from one to the next, 0 where it is broadcast
    float scale;
    bool causal;  // the last query sees all keys, the one before it all but the last, …
    std::int64_t window = no_window;  // with causal: the last keys of these that a query sees, at least 1
};

// Some of the queries that share a head of keys: row r is query r / group of head kv_head * group + r % group.
struct QueryTile {
    std::int64_t batch, kv_head, begin, end;
};

}  // namespace tallow
