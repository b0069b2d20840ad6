#include "kernels/rope.h"

#include "kernels/simd.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

TALLOW_INLINE void turn(float* out, const float* x, const float* cos, const float* sin, int64_t pairs) {
    for (int64_t i = 0; i < pairs; i += width) {
        const int64_t left = pairs - i;
        const F32 c = load_partial(cos + i, left), s = load_partial(sin + i, left);
        const F32 a = load_partial(x + i, left), b = load_partial(x + pairs + i, left);
        store_partial(out + i, a * c - b * s, left);
        store_partial(out + pairs + i, b * c + a * s, left);
    }
}

void rope(const RopeArgs& args, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i / args.n, position = i % args.n, angle = row * args.angles_stride + position * args.pairs;
        const float* x = args.x + row * args.batch_stride + position * args.position_stride;
        float* out = args.out + i * args.heads * 2 * args.pairs;
        for (int64_t head = 0; head < args.heads; ++head)
            turn(out + head * 2 * args.pairs, x + head * args.head_stride, args.cos + angle, args.sin + angle, args.pairs);
    }
}

}  // namespace

void add_rope_kernels(Kernels& table) { table.rope = rope; }

}  // namespace tallow::TALLOW_LEVEL
