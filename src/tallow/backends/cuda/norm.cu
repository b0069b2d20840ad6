// Normalisation of rows of `width` numbers. Row r begins at x + (r / inner) * outer_stride + (r % inner) * inner_stride;
// results lie without gaps. A row is the work of one warp (blockDim.x = 32, several rows a block) or of a whole block.
// T: type of x and the result; W: type of weight and bias.
#include "common.cuh"

namespace {

// The sum over the threads of a row, the same in all of them.
DEVICE float row_sum(float x) {
    __shared__ float sums[33];
    x = warp_sum(x);
    if (blockDim.x == 32) return x;
    __syncthreads();  // the sums of the call before have been read
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    if (threadIdx.x < 32) {
        const float all = warp_sum(threadIdx.x < blockDim.x / 32 ? sums[threadIdx.x] : 0.0f);
        if (threadIdx.x == 0) sums[32] = all;
    }
    __syncthreads();
    return sums[32];
}

}  // namespace

extern "C" __global__ void rms_norm(T* out, const T* x, const W* weight, i64 rows, i64 width, i64 inner,
                                    i64 outer_stride, i64 inner_stride, double eps) {
    const i64 row = static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    const T* from = x + row / inner * outer_stride + row % inner * inner_stride;
    float squares = 0.0f;
    for (i64 i = threadIdx.x; i < width; i += blockDim.x) {
        const float value = to_float(from[i]);
        squares += value * value;
    }
    const float root = sqrtf(row_sum(squares) / static_cast<float>(width) + static_cast<float>(eps));
    for (i64 i = threadIdx.x; i < width; i += blockDim.x)
        out[row * width + i] = Rounded<T>::of(to_float(from[i]) / root * to_float(weight[i]));
}

extern "C" __global__ void layer_norm(T* out, const T* x, const W* weight, const W* bias, i64 rows, i64 width,
                                      i64 inner, i64 outer_stride, i64 inner_stride, double eps) {
    const i64 row = static_cast<i64>(blockIdx.x) * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    const T* from = x + row / inner * outer_stride + row % inner * inner_stride;
    float total = 0.0f;
    for (i64 i = threadIdx.x; i < width; i += blockDim.x) total += to_float(from[i]);
    const float mean = row_sum(total) / static_cast<float>(width);
    float squares = 0.0f;
    for (i64 i = threadIdx.x; i < width; i += blockDim.x) {
        const float centred = to_float(from[i]) - mean;
        squares += centred * centred;
    }
    const float root = sqrtf(row_sum(squares) / static_cast<float>(width) + static_cast<float>(eps));
    for (i64 i = threadIdx.x; i < width; i += blockDim.x)
        out[row * width + i] =
            Rounded<T>::of((to_float(from[i]) - mean) / root * to_float(weight[i]) + to_float(bias[i]));
}
