#include "ops/attention.h"

#include <algorithm>

#include "core/buffers.h"
#include "core/kernels.h"
#include "core/scratch.h"
#include "core/thread_pool.h"

namespace tallow {

namespace {

// Memory from the buffer store, given back at the end of a scope.
class Borrowed {
public:
    explicit Borrowed(std::int64_t bytes) : bytes_(static_cast<std::size_t>(bytes)), memory_(take_buffer(bytes_)) {}
    Borrowed(const Borrowed&) = delete;
    ~Borrowed() { give_buffer(memory_, bytes_); }
    void* get() const { return memory_; }

private:
    std::size_t bytes_;
    void* memory_;
};

// Products that a thread should have to do before it is worth waking.
constexpr std::int64_t worth_sharing = 1 << 16;

std::int64_t tiles_at_once(std::int64_t tiles, std::int64_t products) {
    return std::max<std::int64_t>(1, worth_sharing * tiles / (products + 1));
}

std::int64_t longest(const AttentionArgs& args) {
    if (!args.lengths) return args.keys;
    return std::min(args.keys, *std::max_element(args.lengths, args.lengths + args.batch));
}

// Rows of a tile: many, so that a block of keys is read seldom, but enough tiles for all threads to end together.
std::int64_t rows_in_tile(std::int64_t rows, std::int64_t heads) {
    constexpr std::int64_t most = 96, step = query_rows;
    const std::int64_t wanted = 4 * ThreadPool::instance().threads();
    std::int64_t tiles = std::max((rows + most - 1) / most, (wanted + heads - 1) / heads);
    tiles = std::max<std::int64_t>(1, std::min(tiles, rows / (2 * step)));
    return ((rows + tiles - 1) / tiles + step - 1) / step * step;
}

}  // namespace

void store_key_values(const StoreArgs& args) {
    const std::int64_t heads = args.to.heads;
    // Pieces end where blocks of positions do, so that no panel is written by two threads.
    auto first = [&](std::int64_t row) { return args.lengths ? args.lengths[row] : 0; };
    std::int64_t pieces = 1;
    for (std::int64_t row = 0; row < args.batch; ++row)
        pieces = std::max(pieces, (first(row) + args.n + key_block - 1) / key_block - first(row) / key_block);
    const std::int64_t tiles = args.batch * heads * pieces;
    parallel_for(tiles, tiles_at_once(tiles, args.batch * heads * args.n * args.to.head_dim * 8),
                 [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t tile = begin; tile < end; ++tile) {
            const std::int64_t row = tile / pieces / heads, head = tile / pieces % heads;
            const std::int64_t count = args.counts ? args.counts[row] : args.n;
            const std::int64_t piece = (first(row) / key_block + tile % pieces) * key_block;
            const std::int64_t from = std::max(piece, first(row)), to = std::min(piece + key_block, first(row) + count);
            if (from < to) kernels().store_key_values(args, row, head, from, to);
        }
    });
}

void attend(const AttentionArgs& args) {
    const std::int64_t rows = args.n * (args.heads / args.kv.heads), heads = args.batch * args.kv.heads;
    if (rows == 0 || heads == 0) return;
    const std::int64_t step = rows_in_tile(rows, heads), in_head = (rows + step - 1) / step, tiles = heads * in_head;
    const std::int64_t products = heads * rows * std::min(longest(args), args.window) * 2 * args.kv.head_dim;
    parallel_for(tiles, tiles_at_once(tiles, products), [&](std::int64_t begin, std::int64_t end) {
        void* scratch = thread_scratch(static_cast<std::size_t>(kernels().attention_scratch(args.kv, step)));
        for (std::int64_t tile = begin; tile < end; ++tile) {
            const std::int64_t head = tile / in_head;
            // Later queries see more keys: the longest tiles go first.
            const std::int64_t first = (args.causal ? in_head - 1 - tile % in_head : tile % in_head) * step;
            const QueryTile queries{head / args.kv.heads, head % args.kv.heads, first, std::min(first + step, rows)};
            kernels().attend(args, queries, scratch);
        }
    });
}

void attend(AttentionArgs args, StoreArgs store) {
    KeyValues& kv = store.to;
    kv.padded = (kv.head_dim + 15) / 16 * 16;
    kv.capacity = (store.n + key_panel - 1) / key_panel * key_panel;
    kv.kept = Kept::f32;
    const std::int64_t positions = store.batch * kv.heads * kv.capacity;
    Borrowed memory(positions * (kv.head_dim + kv.padded) * 4);
    kv.keys = memory.get();
    kv.values = static_cast<float*>(memory.get()) + positions * kv.head_dim;
    store_key_values(store);
    args.kv = kv;
    attend(args);
}

}  // namespace tallow
