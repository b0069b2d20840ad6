// Work on each number by itself. T: type of the operands and results; W: of a table or a bias. VECTOR: numbers that a
// thread does, 1 where rows do not begin at multiples of 16 bytes.
#include "common.cuh"

namespace {

// Which row a thread's numbers lie in, and where they begin there. 64-bit divisions are slow, and rarely needed.
struct Place {
    i64 row;
    i64 column;
};

DEVICE Place place(i64 at, i64 width) {
    if constexpr (VECTOR > 1) {
        const u32 vectors = static_cast<u32>(width / VECTOR), number = static_cast<u32>(at);
        return {number / vectors, static_cast<i64>(number % vectors) * VECTOR};
    } else {
        return {at / width, at % width};
    }
}

}  // namespace

// activation(x + bias) * scale + residual for x (rows, width), any of these left out where its pointer is null; `total`
// vectors. x and residual may be the result itself.
extern "C" __global__ void finish(T* out, const T* x, const W* bias, const W* scale, const T* residual, i64 total,
                                  i64 width, i64 residual_stride, i64 activation) {
    const i64 at = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    next_may_start();
    if (at >= total) return;
    wait_for_previous();
    const Place place_of = place(at, width);
    float y[VECTOR], part[VECTOR];
    read(y, x + at * VECTOR);
    if (bias) {
        read(part, bias + place_of.column);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) y[i] += part[i];
    }
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) y[i] = activate(y[i], static_cast<int>(activation));
    if (scale) {
        read(part, scale + place_of.column);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) y[i] *= part[i];
    }
    if (residual) {
        read(part, residual + place_of.row * residual_stride + place_of.column);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) y[i] += part[i];
    }
    write(out + at * VECTOR, y);
}

// activation(gate) * up for rows of `width` numbers at distances of their own; `total` vectors.
extern "C" __global__ void glu(T* out, const T* gate, const T* up, i64 total, i64 width, i64 gate_stride,
                               i64 up_stride, i64 activation) {
    const i64 at = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    next_may_start();
    if (at >= total) return;
    wait_for_previous();
    const Place place_of = place(at, width);
    float gates[VECTOR], ups[VECTOR];
    read(gates, gate + place_of.row * gate_stride + place_of.column);
    read(ups, up + place_of.row * up_stride + place_of.column);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) gates[i] = activate(gates[i], static_cast<int>(activation)) * ups[i];
    write(out + at * VECTOR, gates);
}

// Rows of a table (vocab, width) by number, one a block. There is no telling the caller of a number outside the table
// without waiting for the card, so its row is NaN.
extern "C" __global__ void gather_rows(T* out, const W* table, const i64* ids, i64 vocab, i64 width) {
    next_may_start();
    wait_for_previous();
    const i64 id = ids[blockIdx.x];
    const bool inside = id >= 0 && id < vocab;
    for (i64 i = threadIdx.x; i < width; i += blockDim.x)
        out[blockIdx.x * width + i] = Rounded<T>::of(inside ? to_float(table[id * width + i]) : not_a_number());
}

// Rows of x (b, m, width) by number, the same of each b: out (b, count, width), `total` vectors. Negative numbers count from
// the end; the row of one outside is NaN, as in gather_rows.
extern "C" __global__ void take_rows(T* out, const T* x, const i64* ids, i64 total, i64 width, i64 count, i64 m) {
    const i64 at = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    next_may_start();
    if (at >= total) return;
    wait_for_previous();
    const Place place_of = place(at, width);
    const i64 b = static_cast<u32>(place_of.row) / static_cast<u32>(count), id = ids[place_of.row - b * count];
    float values[VECTOR];
    read(values, x + (b * m + min(max(id < 0 ? id + m : id, 0ll), m - 1)) * width + place_of.column);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) values[i] = id >= -m && id < m ? values[i] : not_a_number();
    write(out + at * VECTOR, values);
}

// Rotates pairs of features of x (b, n, heads, d) by angles (b or 1, n, d / 2). A block does the heads of one position;
// `angle_stride` is 0 where all rows of the batch share the angles. Heads of any width: see rotary.cu for the usual ones.
extern "C" __global__ void rope(T* out, const T* x, const float* cosines, const float* sines, i64 n, i64 heads, i64 d,
                                i64 stride_b, i64 stride_n, i64 stride_h, i64 angle_stride, i64 interleaved) {
    const i64 b = blockIdx.x / n, at = blockIdx.x % n, pairs = d / 2;
    const T* from = x + b * stride_b + at * stride_n;
    T* to = out + static_cast<i64>(blockIdx.x) * heads * d;
    const float* cosine = cosines + b * angle_stride + at * pairs;
    const float* sine = sines + b * angle_stride + at * pairs;
    for (i64 i = threadIdx.x; i < heads * pairs; i += blockDim.x) {
        const i64 head = i / pairs, pair = i % pairs;
        const i64 first = interleaved ? 2 * pair : pair, second = interleaved ? first + 1 : pair + pairs;
        const float u = to_float(from[head * stride_h + first]), v = to_float(from[head * stride_h + second]);
        to[head * d + first] = Rounded<T>::of(u * cosine[pair] - v * sine[pair]);
        to[head * d + second] = Rounded<T>::of(v * cosine[pair] + u * sine[pair]);
    }
}
