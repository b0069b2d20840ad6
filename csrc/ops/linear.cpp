#include "ops/linear.h"

#include <algorithm>

#include "core/buffers.h"
#include "core/scratch.h"
#include "core/thread_pool.h"

namespace tallow {

namespace {

using std::int64_t;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How a product is cut: `across` stretches of panels for each of `down` stretches of rows.
struct Grid {
    int64_t down, across;
};

// Below this many multiplications waking other threads costs more than it saves.
constexpr int64_t least_work = 1 << 15;
// A tile's rows and features: what of activations and sums fits in a core's second cache.
constexpr int64_t max_rows = 140, most_features = 384;
// Enough tiles for each thread that the last ones end nearly together, if they aren't too small to be worth their setup:
// a tile of many rows copies its inputs first, one of few rows reads nothing but weights.
constexpr int64_t tiles_a_thread = 4, narrow_tiles_a_thread = 12, least_tile_work = int64_t(1) << 20;

Grid cut(const LinearArgs& args, int64_t panels, int threads) {
    const PackedMatrix& w = *args.weight;
    const int64_t panel = w.kernels->panel, block_rows = w.kernels->block_rows;
    const int64_t work = args.rows * w.k * panels * panel;
    Grid grid{divide_up(args.rows, max_rows), divide_up(panels * panel, most_features)};
    if (threads == 1 || work < least_work) return args.rows <= block_rows ? Grid{1, 1} : grid;
    if (args.rows <= block_rows) {
        const int64_t most = threads * narrow_tiles_a_thread;
        grid.across = std::min(panels, std::clamp<int64_t>(work / args.rows / (1 << 16), threads, most));
        return grid;
    }
    const int64_t wanted = std::clamp<int64_t>(work / least_tile_work, threads, threads * tiles_a_thread);
    while (grid.down * grid.across < wanted) {
        const bool rows_left = args.rows / (grid.down + 1) >= block_rows, panels_left = grid.across < panels;
        if (!rows_left && !panels_left) break;
        const bool taller = args.rows / grid.down >= panels * panel / grid.across;
        if (rows_left && (taller || !panels_left))
            ++grid.down;
        else
            ++grid.across;
    }
    return grid;
}

}  // namespace

namespace {

// Activations in 8 bits, in memory that goes back with this object.
class Quantized {
public:
    explicit Quantized(const LinearArgs& args) {
        const PackedMatrix& w = *args.weight;
        rows_.rows = args.rows;
        rows_.groups = w.k == w.group ? 1 : w.k / w.group;  // no inputs have no groups, but one scale a row
        const int64_t stretches = std::max<int64_t>(1, divide_up(w.k, w.kernels->stretch));
        const std::size_t values = stretches * args.rows * w.kernels->row_bytes, scales = args.rows * rows_.groups * 4;
        bytes_ = values + 2 * scales;
        rows_.values = static_cast<unsigned char*>(take_buffer(bytes_));
        rows_.scales = reinterpret_cast<float*>(rows_.values + values);
        rows_.sums = reinterpret_cast<std::int32_t*>(rows_.values + values + scales);
        const std::size_t row = args.x.windowed ? (w.k + 16) * sizeof(float) : 0;
        parallel_for(args.rows, 16384 / (w.k + 1) + 1, [&](int64_t begin, int64_t end) {
            w.kernels->quantize(args, rows_, begin, end, row ? thread_scratch(row) : nullptr);
        });
    }
    ~Quantized() { give_buffer(rows_.values, bytes_); }
    Quantized(const Quantized&) = delete;

    const QuantizedRows& rows() const { return rows_; }

private:
    QuantizedRows rows_{};
    std::size_t bytes_;
};

void multiply(const LinearArgs& args, const QuantizedRows* quantized) {
    const MatrixKernels& kernels = *args.weight->kernels;
    const int64_t panels = divide_up(args.weight->n, kernels.panel);
    const Grid grid = cut(args, panels, ThreadPool::instance().threads());
    // Tiles of the same weights follow each other: threads that are at them together read them from memory once.
    parallel_for(grid.down * grid.across, 1, [&](int64_t tile_index, int64_t) {
        const int64_t row = tile_index % grid.down, column = tile_index / grid.down;
        const Tile tile{args.rows * row / grid.down, args.rows * (row + 1) / grid.down,  //
                        panels * column / grid.across, panels * (column + 1) / grid.across};
        kernels.multiply(args, quantized, tile, thread_scratch(kernels.scratch_bytes(args, tile)));
    });
}

}  // namespace

void linear(const LinearArgs& args) {
    if (args.rows == 0 || args.weight->n == 0) return;
    if (!args.weight->kernels->quantize) return multiply(args, nullptr);
    const Quantized quantized(args);
    multiply(args, &quantized.rows());
}

}  // namespace tallow
