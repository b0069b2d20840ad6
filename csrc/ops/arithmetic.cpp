#include "ops/arithmetic.h"

#include <cmath>
#include <cstring>

#include "core/thread_pool.h"

namespace tallow {

namespace {

// The numbers of a row, one loop for each of the usual ways in which operands lie, so that the compiler makes vectors.
template <typename F>
void row(float* out, const float* x, std::int64_t x_step, const float* y, std::int64_t y_step, std::int64_t n, F f) {
    if (x_step == 1 && y_step == 1) {
        for (std::int64_t i = 0; i < n; ++i) out[i] = f(x[i], y[i]);
    } else if (x_step == 1 && y_step == 0) {
        const float other = *y;
        for (std::int64_t i = 0; i < n; ++i) out[i] = f(x[i], other);
    } else if (x_step == 0 && y_step == 1) {
        const float other = *x;
        for (std::int64_t i = 0; i < n; ++i) out[i] = f(other, y[i]);
    } else {
        for (std::int64_t i = 0; i < n; ++i) out[i] = f(x[i * x_step], y[i * y_step]);
    }
}

// Rows are cut where threads' shares end: a number's value does not depend on its neighbours.
template <typename F>
void each(const ElementwiseArgs& args, F f) {
    constexpr std::int64_t worth_sharing = 1 << 14;
    std::int64_t total = 1;
    for (int axis = 0; axis < args.axes; ++axis) total *= args.shape[axis];
    parallel_for(total, worth_sharing, [&](std::int64_t begin, std::int64_t end) {
        const int last = args.axes - 1;
        const std::int64_t columns = args.shape[last];
        while (begin < end) {
            std::int64_t rest = begin / columns;
            const std::int64_t column = begin % columns;
            const std::int64_t count = end - begin < columns - column ? end - begin : columns - column;
            std::int64_t x = column * args.x.strides[last], y = column * args.y.strides[last];
            for (int axis = last - 1; axis >= 0; --axis) {
                x += rest % args.shape[axis] * args.x.strides[axis];
                y += rest % args.shape[axis] * args.y.strides[axis];
                rest /= args.shape[axis];
            }
            const float* other = args.y.data ? args.y.data + y : &args.scalar;
            row(args.out + begin, args.x.data + x, args.x.strides[last], other, args.y.strides[last], count, f);
            begin += count;
        }
    });
}

// NaN if either is, as in NumPy.
float larger_of(float a, float b) { return a >= b || a != a ? a : b; }
float smaller_of(float a, float b) { return a <= b || a != a ? a : b; }

struct Named {
    const char* name;
    Elementwise function;
};

#define TALLOW_BINARY(name, value) \
    {name, [](const ElementwiseArgs& args) { each(args, [](float a, float b) { return value; }); }}
#define TALLOW_UNARY(name, value) \
    {name, [](const ElementwiseArgs& args) { each(args, [](float a, float) { return value; }); }}
constexpr Named functions[] = {
    TALLOW_BINARY("add", a + b),
    TALLOW_BINARY("subtract", a - b),
    TALLOW_BINARY("multiply", a * b),
    TALLOW_BINARY("divide", a / b),
    TALLOW_BINARY("maximum", larger_of(a, b)),
    TALLOW_BINARY("minimum", smaller_of(a, b)),
    TALLOW_UNARY("negative", -a),
    TALLOW_UNARY("abs", std::fabs(a)),
    TALLOW_UNARY("square", a * a),
    TALLOW_UNARY("sqrt", std::sqrt(a)),
    TALLOW_UNARY("reciprocal", 1.0f / a),
    TALLOW_UNARY("exp", std::exp(a)),
    TALLOW_UNARY("log", std::log(a)),
    TALLOW_UNARY("tanh", std::tanh(a)),
    TALLOW_UNARY("sin", std::sin(a)),
    TALLOW_UNARY("cos", std::cos(a)),
};
#undef TALLOW_BINARY
#undef TALLOW_UNARY

}  // namespace

Elementwise elementwise(const char* name) {
    for (const Named& each : functions)
        if (std::strcmp(each.name, name) == 0) return each.function;
    return nullptr;
}

}  // namespace tallow
