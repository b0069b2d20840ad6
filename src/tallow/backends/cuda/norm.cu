// Normalisation of rows of `width` numbers. Row r begins at x + (r / inner) * outer_stride + (r % inner) * inner_stride;
// results lie without gaps. A row is read once and kept in the registers of ROW threads: part of a warp, or a block.
// T: type of x and the result; W: of weight and bias. VECTOR: numbers read at a time, 1 where rows do not begin at multiples
// of 16 bytes; COUNT: such vectors of a thread.
#include "common.cuh"

namespace {

// The sum over the threads of a row, the same in all of them.
DEVICE float row_sum(float x) {
    if constexpr (ROW > 32) {
        __shared__ float parts[ROW / 32 + 1];
        return block_sum<ROW>(x, parts);
    } else {
#pragma unroll
        for (int step = ROW / 2; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
        return x;
    }
}

struct Place {
    const T* from;
    i64 row;
    bool there;
};

DEVICE Place place(const T* x, i64 rows, i64 inner, i64 outer_stride, i64 inner_stride) {
    const i64 row = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) / ROW;
    const u32 r = static_cast<u32>(min(row, rows - 1)), i = static_cast<u32>(inner);
    return {x + r / i * outer_stride + r % i * inner_stride, row, row < rows};
}

DEVICE int column(int part) { return (part * ROW + static_cast<int>(threadIdx.x) % ROW) * VECTOR; }

DEVICE void load(float (&values)[COUNT][VECTOR], const Place& at, int width) {
#pragma unroll
    for (int part = 0; part < COUNT; ++part) {
        if (column(part) < width) {
            read(values[part], at.from + column(part));
        } else {
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) values[part][i] = 0.0f;
        }
    }
}

}  // namespace

extern "C" __global__ void rms_norm(T* out, const T* x, const W* weight, i64 rows, i64 width, i64 inner,
                                    i64 outer_stride, i64 inner_stride, double eps) {
    next_may_start();
    wait_for_previous();
    const Place at = place(x, rows, inner, outer_stride, inner_stride);
    float values[COUNT][VECTOR], squares = 0.0f;
    load(values, at, static_cast<int>(width));
#pragma unroll
    for (int part = 0; part < COUNT; ++part)
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) squares = fmaf(values[part][i], values[part][i], squares);
    const float inverse = 1.0f / sqrtf(row_sum(squares) / static_cast<float>(width) + static_cast<float>(eps));
#pragma unroll
    for (int part = 0; part < COUNT; ++part) {
        if (column(part) >= width || !at.there) continue;
        float weights[VECTOR];
        read(weights, weight + column(part));
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) values[part][i] = values[part][i] * inverse * weights[i];
        write(out + at.row * width + column(part), values[part]);
    }
}

extern "C" __global__ void layer_norm(T* out, const T* x, const W* weight, const W* bias, i64 rows, i64 width,
                                      i64 inner, i64 outer_stride, i64 inner_stride, double eps) {
    next_may_start();
    wait_for_previous();
    const Place at = place(x, rows, inner, outer_stride, inner_stride);
    float values[COUNT][VECTOR], total = 0.0f, squares = 0.0f;
    load(values, at, static_cast<int>(width));
#pragma unroll
    for (int part = 0; part < COUNT; ++part)
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) total += values[part][i];
    const float mean = row_sum(total) / static_cast<float>(width);
#pragma unroll
    for (int part = 0; part < COUNT; ++part)
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) {
            values[part][i] -= mean;
            if (column(part) < width) squares = fmaf(values[part][i], values[part][i], squares);
        }
    const float inverse = 1.0f / sqrtf(row_sum(squares) / static_cast<float>(width) + static_cast<float>(eps));
#pragma unroll
    for (int part = 0; part < COUNT; ++part) {
        if (column(part) >= width || !at.there) continue;
        float weights[VECTOR], biases[VECTOR];
        read(weights, weight + column(part));
        read(biases, bias + column(part));
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) values[part][i] = fmaf(values[part][i] * inverse, weights[i], biases[i]);
        write(out + at.row * width + column(part), values[part]);
    }
}
