// Rows that are normalised on their way into a product: NORM says how, 0 not at all, 1 by root mean square, 2 by mean and
// variance. What comes out is rounded as the operation of its own would. X: type of rows and parameters.
#pragma once
#include "common.cuh"

constexpr int VECTOR = Pack<X>::SIZE;

// Begins to copy the parameters of a norm into shared memory, behind `rows` rows. A thread copies what it will read itself.
template <int THREADS> DEVICE void expect_parameters(X* to, const X* gain, const X* shift, int rows, int width) {
    to += rows * width;
    for (int at = static_cast<int>(threadIdx.x) * VECTOR; at < width; at += THREADS * VECTOR) {
        copy_early(to + at, gain + at);
        if constexpr (NORM == 2) copy_early(to + width + at, shift + at);
    }
    copies_end();
}

// Puts `rows` normalised rows of x into shared memory, one after another, and, in the first block, into `out` as well. Rows
// begin at multiples of 16 bytes, and are as long as a multiple of them. `expect_parameters` comes first, and LEFT groups of
// copies after it.
template <int THREADS, int LEFT>
DEVICE void normalise_rows(X* to, X* out, const X* x, i64 x_stride, int rows, int width, float eps) {
    __shared__ float parts[THREADS / 32];
    const int first = static_cast<int>(threadIdx.x) * VECTOR;
    const X *const gain = to + rows * width, *const shift = gain + width;
    for (int row = 0; row < rows; ++row, to += width, out += width, x += x_stride) {
        float values[VECTOR], sum = 0.0f, mean = 0.0f;
        for (int at = first; at < width; at += THREADS * VECTOR) {
            const Pack<X> some = load_pack(x + at);
            store_pack(to + at, some);
            unpack(values, some);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) sum = NORM == 2 ? sum + values[i] : fmaf(values[i], values[i], sum);
        }
        sum = block_sum<THREADS>(sum, parts) / static_cast<float>(width);
        wait_for_copies<LEFT>();
        if constexpr (NORM == 2) {
            mean = sum, sum = 0.0f;
            for (int at = first; at < width; at += THREADS * VECTOR) {
                read(values, to + at);
#pragma unroll
                for (int i = 0; i < VECTOR; ++i) sum = fmaf(values[i] - mean, values[i] - mean, sum);
            }
            sum = block_sum<THREADS>(sum, parts) / static_cast<float>(width);
        }
        const float inverse = 1.0f / sqrtf(sum + eps);
        for (int at = first; at < width; at += THREADS * VECTOR) {
            float gains[VECTOR], shifts[VECTOR];
            read(values, to + at), read(gains, gain + at);
            if constexpr (NORM == 2) read(shifts, shift + at);
#pragma unroll
            for (int i = 0; i < VECTOR; ++i) {
                values[i] = (values[i] - mean) * inverse;
                values[i] = NORM == 2 ? fmaf(values[i], gains[i], shifts[i]) : values[i] * gains[i];
            }
            write(to + at, values);
            if (blockIdx.x == 0) write(out + at, values);
        }
    }
    __syncthreads();
}
