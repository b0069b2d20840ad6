// Pixels as they are decoded, made into what vision models read.
#include "common.cuh"

// pixels (pictures, plane, 3) -> out (pictures, 3, plane): (v / 255 - mean) / deviation of each colour. A thread does
// VECTOR neighbours: 4, if plane is a multiple of it, or 1.
extern "C" __global__ void normalize_pixels(T* __restrict__ out, const unsigned char* __restrict__ pixels, i64 vectors,
                                            i64 plane, double mean0, double mean1, double mean2, double deviation0,
                                            double deviation1, double deviation2) {
    next_may_start();
    const i64 vector = static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (vector >= vectors) return;
    wait_for_previous();
    const float mean[3] = {static_cast<float>(mean0), static_cast<float>(mean1), static_cast<float>(mean2)};
    const float deviation[3] = {static_cast<float>(deviation0), static_cast<float>(deviation1),
                                static_cast<float>(deviation2)};
    const i64 first = vector * VECTOR, picture = first / plane;
    unsigned char values[3 * VECTOR];
    if constexpr (VECTOR == 4) {
        const u32* words = reinterpret_cast<const u32*>(pixels + 3 * first);
#pragma unroll
        for (int i = 0; i < 3; ++i) {
            const u32 word = words[i];
#pragma unroll
            for (int byte = 0; byte < 4; ++byte) values[4 * i + byte] = static_cast<unsigned char>(word >> 8 * byte);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 3; ++i) values[i] = pixels[3 * first + i];
    }
    T* to = out + picture * 3 * plane + (first - picture * plane);
#pragma unroll
    for (int colour = 0; colour < 3; ++colour) {
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) {
            const float value = static_cast<float>(values[3 * i + colour]) / 255.0f;
            to[colour * plane + i] = Rounded<T>::of((value - mean[colour]) / deviation[colour]);
        }
    }
}
