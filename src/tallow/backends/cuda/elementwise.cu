// Work on each number by itself, or on a few. T: type of the operands and results; W: of a table or a bias.
#include "common.cuh"

// activation(x + bias) * scale + residual for x (rows, width), any of these left out where its pointer is null.
// x and residual may be the result itself.
extern "C" __global__ void finish(T* out, const T* x, const W* bias, const W* scale, const T* residual, i64 total,
                                  i64 width, i64 residual_stride, i64 activation) {
    const i64 at = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= total) return;
    const i64 row = at / width, column = at % width;
    float y = to_float(x[at]);
    if (bias) y += to_float(bias[column]);
    y = activate(y, static_cast<int>(activation));
    if (scale) y *= to_float(scale[column]);
    if (residual) y += to_float(residual[row * residual_stride + column]);
    out[at] = Rounded<T>::of(y);
}

// silu(gate) * up for rows of `width` numbers at distances of their own.
extern "C" __global__ void swiglu(T* out, const T* gate, const T* up, i64 total, i64 width, i64 gate_stride,
                                  i64 up_stride) {
    const i64 at = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= total) return;
    const i64 row = at / width, column = at % width;
    const float y = to_float(gate[row * gate_stride + column]);
    out[at] = Rounded<T>::of(activate(y, 3) * to_float(up[row * up_stride + column]));
}

// Rows of a table (vocab, width) by number, one a block. There is no telling the caller of a number outside the table
// without waiting for the card, so its row is NaN.
extern "C" __global__ void gather_rows(T* out, const W* table, const i64* ids, i64 vocab, i64 width) {
    const i64 id = ids[blockIdx.x];
    const bool inside = id >= 0 && id < vocab;
    for (i64 i = threadIdx.x; i < width; i += blockDim.x)
        out[blockIdx.x * width + i] = Rounded<T>::of(inside ? to_float(table[id * width + i]) : not_a_number());
}

// Rotates pairs of features of x (b, n, heads, d) by angles (b or 1, n, d / 2). A block does the heads of one position;
// `angle_stride` is 0 where all rows of the batch share the angles.
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
