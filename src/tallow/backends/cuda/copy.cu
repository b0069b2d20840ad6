// Copies what lies in one way in memory into what lies in another. V: what is copied at a time, as wide as both let it be;
// sizes and strides are in such.
#include "common.cuh"

struct Axes {
    i64 size[AXES], from[AXES], to[AXES];
};

extern "C" __global__ void __launch_bounds__(256)
    copy(V* to, const V* from, i64 count, const __grid_constant__ Axes axes) {
    next_may_start();
    wait_for_previous();
    for (u32 number = blockIdx.x * 256 + threadIdx.x; number < count; number += gridDim.x * 256) {
        u32 left = number;
        i64 source = 0, target = 0;
#pragma unroll
        for (int axis = AXES - 1; axis >= 0; --axis) {
            const u32 size = static_cast<u32>(axes.size[axis]), at = left % size;
            left /= size;
            source += at * axes.from[axis];
            target += at * axes.to[axis];
        }
        to[target] = from[source];
    }
}
