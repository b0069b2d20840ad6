// The affine map as a phase of a program: out[m, n] = activation(norm(x[m]) · w[n] + bias[n]) * factor[n] + residual[m, n];
// gated, w has a row n of gates and a row outputs + n, and the result is silu(x[m] · gate) * (x[m] · other).
//
// A block has outputs of its own. Their rows of w are cut into units (rows that a warp takes at once; of quantised weights a
// row of tiles) and these into pieces along the row, each of which fills a place of the ring. Units are taken in batches of
// as many as there are warps; where a batch has fewer, warps share a unit, and each takes some of its pieces.
#pragma once
#include "program.cuh"

// A block's part of a phase.
struct Share {
    int first, own, units;  // outputs (of quantised weights: rows of tiles), and units that make them
    DEVICE Share(const Linear& in, int rotation) {
        const u32 outputs = static_cast<u32>(in.outputs);
        const u32 total = in.format ? (outputs + TILE_HEIGHT - 1) / TILE_HEIGHT : outputs;
        const u32 place = (blockIdx.x + rotation) % gridDim.x;  // so that nobody has the larger share each time
        first = static_cast<int>(total * place / gridDim.x);
        own = static_cast<int>(total * (place + 1) / gridDim.x) - first;
        const int rows = (in.flags & GATED) ? 2 * own : own, unit = 1 << in.unit_shift;
        units = in.format ? rows : (rows + unit - 1) >> in.unit_shift;
    }
    // The row of w (or row of tiles) that a row of this block's is.
    DEVICE i64 row(int local, i64 outputs) const { return local < own ? first + local : outputs + first + local - own; }
};

DEVICE int rotation_of(int phase) { return phase * 29; }

// The units of a batch, and how warps share them.
struct Batch {
    int units, shift;  // shift: log2 of the units, rounded up
    DEVICE Batch(int all, int number) {
        units = min(WARPS, all - number * WARPS);
        shift = units <= 1 ? 0 : 32 - __clz(units - 1);
    }
};

// The places of the ring: how many there are, and the number of the next piece.
struct Ring {
    u8* slots;
    u64 *full, *empty;
    u32 count, next;
};

// The warp that fetches: every piece of this block's part of a phase, in order. Four lanes look after a piece: one for each
// row of a unit, or for each plane of tiles.
DEVICE void fetch_weights(const Linear& in, int phase, Ring& ring) {
    const Share share(in, rotation_of(phase));
    const int part = threadIdx.x % 4, pieces = static_cast<int>(in.pieces), unit_rows = 1 << in.unit_shift;
    const int rows = (in.flags & GATED) ? 2 * share.own : share.own, most = static_cast<int>(in.piece);
    const bool tiled = in.format != 0;
    const i64 width = tiled ? (in.inputs + TILE_WIDTH - 1) / TILE_WIDTH : in.inputs * sizeof(T);  // tiles or bytes
    const i64 height = tiled ? in.outputs / TILE_HEIGHT : in.outputs;
    const u8* const plane = part == 0 || !tiled ? in.codes : part == 1 ? in.high : part == 2 ? in.scales : in.supers;
    const int code = static_cast<int>(in.code_bytes), high = static_cast<int>(in.high_bytes);
    const int scale = static_cast<int>(in.scale_bytes), super = static_cast<int>(in.super_bytes);
    const int bytes = part == 0 ? code : part == 1 ? high : part == 2 ? scale : super;  // of a tile, or of four
    const int before = most * (part == 0 ? 0 : part == 1 ? code : part == 2 ? code + high : code + high + scale);
    const int count = share.units * pieces;
    for (int begin = 0; begin < count; begin += 8) {
        const int index = begin + threadIdx.x % 32 / 4;
        if (index < count) {
            const int batch = index / (WARPS * pieces), rest = index % (WARPS * pieces);
            const int units = min(WARPS, share.units - batch * WARPS);
            const int piece = rest / units, unit = batch * WARPS + rest % units;
            const int size = static_cast<int>(min(in.piece, width - piece * in.piece));
            const u32 number = ring.next + index, slot = number % ring.count, turn = number / ring.count;
            u8* const to = ring.slots + slot * SLOT;
            u64* const full = ring.full + slot;
            if (turn) wait(ring.empty + slot, (turn - 1) & 1);
            if (number >= FLIGHT) {
                const u32 early = number - FLIGHT, round = early / ring.count;
                wait(ring.full + (early - round * ring.count), round & 1);
            }
            if (tiled) {
                const int supers = (size + 3) / 4 * super;
                if (part == 0) arrive_and_expect(full, size * (code + high + scale) + supers);
                const i64 tile = share.row(unit, height) * width + piece * in.piece;
                if (part == 3 && super) copy_in_bulk(to + before, plane + tile / 4 * super, supers, full);
                if (part < 3 && bytes) copy_in_bulk(to + before, plane + tile * bytes, size * bytes, full);
            } else {
                const int row = unit * unit_rows + part;
                if (part == 0) arrive_and_expect(full, min(unit_rows, rows - row) * size);
                if (part < unit_rows && row < rows)
                    copy_in_bulk(to + part * most, plane + share.row(row, height) * width + piece * in.piece, size, full);
            }
        }
        __syncwarp();
    }
    ring.next += count;
}

// Rows of x normalised, one after the other by some warps; what a norm takes part in.
struct Affine {
    float mean, inverse;
    // A vector of a row at a column, normalised and rounded.
    DEVICE Pack<T> of(const Pack<T>& x, const Pack<T>& gain, const Pack<T>& shift) const {
        float values[SIZE], gains[SIZE], shifts[SIZE];
        unpack(values, x), unpack(gains, gain), unpack(shifts, shift);
#pragma unroll
        for (int i = 0; i < SIZE; ++i) values[i] = fmaf((values[i] - mean) * inverse, gains[i], shifts[i]);
        return pack(values, T{});
    }
};

DEVICE void add_squares(float& sum, float& squares, const Pack<T>& pack, float mean) {
    float values[SIZE];
    unpack(values, pack);
#pragma unroll
    for (int i = 0; i < SIZE; ++i) sum += values[i], squares = fmaf(values[i] - mean, values[i] - mean, squares);
}

// x into shared memory, normalised where the instruction says so; rows lie `pitch` numbers apart. All consumers take part.
// A thread's first vector, mostly its only one, stays in registers meanwhile.
DEVICE void stage_rows(const Linear& in, T* staged, int pitch, float* parts, int rows, bool keeps, u32 launch) {
    constexpr int EACH = WARPS / ROWS;  // warps of a row
    constexpr int STEP = EACH * 32 * SIZE;
    const int warp = threadIdx.x / 32, row = warp / EACH, width = row < rows ? static_cast<int>(in.inputs) : 0;
    const int begin = (warp % EACH * 32 + threadIdx.x % 32) * SIZE;
    const i64 from = row * in.inputs;
    const bool wired = in.flags & X_WIRED;
    T* const to = staged + row * pitch;
    Pack<T> held = {}, gain = {}, shift = {};
    float sum = 0.0f, squares = 0.0f;
    const int first_column = warp % EACH * 32 * SIZE;
    if (wired && first_column < width) wait_for_first(in.x, from + first_column, launch);
    if (begin < width) {
        if (in.gain) gain = load_pack(in.gain + begin);
        if (in.shift) shift = load_pack(in.shift + begin);
        held = arriving(in.x, from + begin, wired, launch);
        if (in.gain) add_squares(sum, squares, held, 0.0f);
    }
    for (int at = begin + STEP; at < width; at += STEP) {
        const Pack<T> pack = arriving(in.x, from + at, wired, launch);
        store_pack(to + at, pack);
        if (in.gain) add_squares(sum, squares, pack, 0.0f);
    }
    if (in.gain) {
        const int first = row * EACH;
        Affine affine = {0.0f, 0.0f};
        if (in.shift) {  // layer norm
            affine.mean = sum_of_warps(sum, parts, first, EACH) / static_cast<float>(in.inputs);
            squares = 0.0f;
            if (begin < width) add_squares(sum, squares, held, affine.mean);
            for (int at = begin + STEP; at < width; at += STEP) add_squares(sum, squares, load_pack(to + at), affine.mean);
        }
        squares = sum_of_warps(squares, parts, first, EACH);
        affine.inverse = 1.0f / sqrtf(squares / static_cast<float>(in.inputs) + static_cast<float>(in.eps));
        T* const kept = in.normed + row * in.inputs;
        if (begin < width) {
            held = affine.of(held, gain, shift);
            if (keeps) store_pack(kept + begin, held);
        }
        for (int at = begin + STEP; at < width; at += STEP) {
            const Pack<T> none = {}, more = affine.of(load_pack(to + at), load_pack(in.gain + at),
                                                      in.shift ? load_pack(in.shift + at) : none);
            store_pack(to + at, more);
            if (keeps) store_pack(kept + at, more);
        }
    }
    if (begin < width) store_pack(to + begin, held);
    sync_consumers();
}

// Adds a piece of UNIT rows of a dense weight, each lane its columns. Rows of the piece lie `piece` bytes apart.
template <int UNIT>
DEVICE void add_dense(float (&sums)[UNIT][ROWS], const u8* slot, int piece, int columns, const T* x, int pitch, int rows) {
    for (int at = threadIdx.x % 32 * SIZE; at < columns; at += 32 * SIZE) {
        float weights[UNIT][SIZE];
#pragma unroll
        for (int r = 0; r < UNIT; ++r) read(weights[r], reinterpret_cast<const T*>(slot + r * piece) + at);
#pragma unroll
        for (int m = 0; m < ROWS; ++m) {
            float values[SIZE];
            read(values, x + (m < rows ? m : 0) * pitch + at);
#pragma unroll
            for (int r = 0; r < UNIT; ++r)
#pragma unroll
                for (int i = 0; i < SIZE; ++i) sums[r][m] = fmaf(values[i], weights[r][i], sums[r][m]);
        }
    }
}

// Where a warp leaves its sums of a unit: (unit_rows, ROWS) floats for each batch and warp.
DEVICE float* place_of(float* partial, int batch, int warp, int unit_rows) {
    return partial + (batch * WARPS + warp) * unit_rows * ROWS;
}

// What all warps do with the pieces that the ring brings; `Take` is a kind of weight. See Dense and Tiled.
template <class Take> DEVICE void take_pieces(const Linear& in, const Share& share, Ring& ring, const Take& take,
                                              float* partial) {
    const int warp = threadIdx.x / 32, pieces = static_cast<int>(in.pieces);
    for (int number = 0; number * WARPS < share.units; ++number) {
        const Batch batch(share.units, number);
        const int unit = warp & ((1 << batch.shift) - 1), first = warp >> batch.shift;
        if (unit < batch.units && first < pieces) {
            typename Take::Sums sums = {};
            for (int piece = first; piece < pieces; piece += WARPS >> batch.shift) {
                const u32 at = ring.next + piece * batch.units + unit, turn = at / ring.count, slot = at - turn * ring.count;
                wait(ring.full + slot, turn & 1);
                take.add(sums, ring.slots + slot * SLOT, piece);
                __syncwarp();
                if (threadIdx.x % 32 == 0) arrive(ring.empty + slot);
            }
            take.leave(sums, place_of(partial, number, warp, Take::UNIT));
        }
        ring.next += pieces * batch.units;
    }
}

template <int ROWS_OF_UNIT> struct Dense {
    static constexpr int UNIT = ROWS_OF_UNIT;
    struct Sums {
        float at[UNIT][ROWS];
    };
    const Linear& in;
    const T* x;
    int pitch, rows;
    DEVICE void add(Sums& sums, const u8* slot, int piece) const {
        const int size = static_cast<int>(in.piece), begin = piece * size / static_cast<int>(sizeof(T));
        const int columns = min(size / static_cast<int>(sizeof(T)), static_cast<int>(in.inputs) - begin);
        add_dense<UNIT>(sums.at, slot, size, columns, x + begin, pitch, rows);
    }
    DEVICE void leave(Sums& sums, float* to) const {
#pragma unroll
        for (int r = 0; r < UNIT; ++r)
#pragma unroll
            for (int m = 0; m < ROWS; ++m) {
                const float sum = warp_sum(sums.at[r][m]);
                if (threadIdx.x % 32 == (r * ROWS + m) % 32) to[r * ROWS + m] = sum;
            }
    }
};

template <class Format> struct Tiled {
    static constexpr int UNIT = TILE_HEIGHT;
    struct Sums {
        float at[1][1][4];
    };
    const Linear& in;
    const T* x;
    int pitch, rows;
    DEVICE void add(Sums& sums, const u8* slot, int piece) const {
        const int lane = threadIdx.x % 32, most = static_cast<int>(in.piece), first = piece * most;
        const int across = static_cast<int>(in.inputs) / TILE_WIDTH, count = min(most, across - first);
        const u8* at = slot;
        const auto plane = [&](int bytes) {
            const u8* begin = at;
            at += most * bytes;
            return reinterpret_cast<const u32*>(begin);
        };
        const u32* codes = plane(Format::CODE_BYTES);
        const u32* high = plane(Format::HIGH_BYTES);
        const u32* scales = plane(Format::SCALE_BYTES);
        const Planes planes = {codes, high, scales, reinterpret_cast<const u32*>(at)};
        const T* from = x + min(lane / 4, ROWS - 1) * pitch + first * TILE_WIDTH + lane % 4 * 4;
#pragma unroll 2
        for (int t = 0; t < count; ++t) {
            typename Format::Tile tiles[1];
            Operand<T> operands[1];
            Format::template load<true>(tiles[0], planes, t, lane);
            operands[0].load(from + t * TILE_WIDTH, lane / 4 < rows);
            Format::multiply(sums.at, tiles, operands);
        }
    }
    DEVICE void leave(Sums& sums, float* to) const {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            const int m = lane % 4 * 2 + c % 2;
            if (m < ROWS) to[(lane / 4 + c / 2 * 8) * ROWS + m] = sums.at[0][0][c];
        }
    }
};

// Goes through the formats that the program was compiled for, until it finds that of the weight.
template <class... Formats> struct Choice;
template <> struct Choice<> {
    static DEVICE void run(i64, const Linear&, const Share&, Ring&, const T*, int, int, float*) {}
};
template <class First, class... Rest> struct Choice<First, Rest...> {
    static DEVICE void run(i64 format, const Linear& in, const Share& share, Ring& ring, const T* x, int pitch, int rows,
                           float* partial) {
        if (format == 1)
            take_pieces(in, share, ring, Tiled<First>{in, x, pitch, rows}, partial);
        else
            Choice<Rest...>::run(format - 1, in, share, ring, x, pitch, rows, partial);
    }
};

// The sum of one row of this block's, of all warps that had a part in it.
DEVICE float joined(const Linear& in, const Share& share, const float* partial, int local, int m) {
    const int unit = local >> in.unit_shift, number = unit / WARPS, row = local & ((1 << in.unit_shift) - 1);
    const Batch batch(share.units, number);
    const int sharers = min(WARPS >> batch.shift, static_cast<int>(in.pieces));
    const float* at = partial + ((((number * WARPS + unit % WARPS) << in.unit_shift) + row) * ROWS + m);
    float sum = 0.0f;
    for (int i = 0; i < sharers; ++i) sum += at[(i << batch.shift << in.unit_shift) * ROWS];
    return sum;
}

// One phase, for the consumers of a block.
DEVICE void run_linear(const Linear& in, int phase, Ring& ring, u8* work, i64 partial_at, float* parts, int rows,
                       u32 launch) {
    T* const x = reinterpret_cast<T*>(work);
    float* const partial = reinterpret_cast<float*>(work + partial_at);
    const int pitch = static_cast<int>(in.inputs) + 16;  // so that rows do not meet in one bank
    const Share share(in, rotation_of(phase));
    const int height = in.format ? TILE_HEIGHT : 1;
    const int first = share.first * height;
    const int own = min(share.own * height, static_cast<int>(in.outputs) - first);
    const auto index = [&](int i) -> i64 { return i / own * in.outputs + first + i % own; };
    const auto to_add = [&](int i) {
        const bool wired = in.flags & RESIDUAL_WIRED;
        if (wired) return to_float(T{receive(static_cast<const u32*>(in.residual) + index(i), launch)});
        return to_float(T{__ldcg(static_cast<const u16*>(in.residual) + index(i))});
    };
    stage_rows(in, x, pitch, parts, rows, in.normed && blockIdx.x == phase % gridDim.x, launch);
    float added = 0.0f;  // to this thread's first result: asked for before it is needed
    if (in.residual && static_cast<int>(threadIdx.x) < own * rows) added = to_add(threadIdx.x);
    if (in.format)
        Choice<FORMATS>::run(in.format, in, share, ring, x, pitch, rows, partial);
    else if (in.unit_shift == 0)
        take_pieces(in, share, ring, Dense<1>{in, x, pitch, rows}, partial);
    else if (in.unit_shift == 1)
        take_pieces(in, share, ring, Dense<2>{in, x, pitch, rows}, partial);
    else
        take_pieces(in, share, ring, Dense<4>{in, x, pitch, rows}, partial);
    sync_consumers();
    for (int i = threadIdx.x; i < own * rows; i += CONSUMERS) {
        const int local = i % own, m = i / own, n = first + local;
        float y = joined(in, share, partial, local, m);
        if (in.row_scales) y *= in.row_scales[n];
        if ((in.flags & GATED)) {
            float other = joined(in, share, partial, local + share.own * height, m);
            if (in.row_scales) other *= in.row_scales[in.outputs + n];
            y = activate(rounded<T>(y), 3) * rounded<T>(other);
        } else {
            if (in.bias) y += to_float(in.bias[n]);
            y = activate(y, static_cast<int>(in.activation));
            if (in.factor) y *= to_float(in.factor[n]);
            if (in.residual && i >= CONSUMERS) added = to_add(i);
            y += added;
        }
        leave(in.out, in.out_wire, index(i), y, launch);
    }
}
