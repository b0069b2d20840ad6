#include "ops/arithmetic.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "core/thread_pool.h"

namespace tallow {

namespace {

// The numbers of a row, one loop for each of the usual ways in which operands lie, so that the compiler makes vectors.
template <typename Result, typename F>
void row(Result* out, const float* x, std::int64_t x_step, const float* y, std::int64_t y_step, std::int64_t n, F f) {
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

// Calls f(begin, count) for rows, or parts of rows where threads' shares end: a number's value does not depend on its
// neighbours.
template <typename F>
void each_row(const ElementwiseArgs& args, F f) {
    constexpr std::int64_t worth_sharing = 1 << 14;
    std::int64_t total = 1;
    for (int axis = 0; axis < args.axes; ++axis) total *= args.shape[axis];
    const std::int64_t columns = args.shape[args.axes - 1];
    parallel_for(total, worth_sharing, [&](std::int64_t begin, std::int64_t end) {
        while (begin < end) {
            const std::int64_t count = std::min(end - begin, columns - begin % columns);
            f(begin, count);
            begin += count;
        }
    });
}

// Where an operand has the element that is number `at` of the result.
template <typename T>
const T* element(const ElementwiseArgs& args, const ElementwiseOperand<T>& operand, std::int64_t at) {
    std::int64_t offset = 0;
    for (int axis = args.axes - 1; axis >= 0; --axis) {
        offset += at % args.shape[axis] * operand.strides[axis];
        at /= args.shape[axis];
    }
    return operand.data + offset;
}

template <typename F>
void each(const ElementwiseArgs& args, F f) {
    using Result = std::invoke_result_t<F, float, float>;
    const std::int64_t x_step = args.x.strides[args.axes - 1], y_step = args.y.strides[args.axes - 1];
    each_row(args, [&](std::int64_t begin, std::int64_t count) {
        const float *x = element(args, args.x, begin), *y = element(args, args.y, begin);
        row(static_cast<Result*>(args.out) + begin, x, x_step, y, y_step, count, f);
    });
}

void choose(const ElementwiseArgs& args) {
    const int last = args.axes - 1;
    each_row(args, [&](std::int64_t begin, std::int64_t count) {
        const std::uint8_t* condition = element(args, args.condition, begin);
        const float *x = element(args, args.x, begin), *y = element(args, args.y, begin);
        float* out = static_cast<float*>(args.out) + begin;
        for (std::int64_t i = 0; i < count; ++i)
            out[i] = condition[i * args.condition.strides[last]] ? x[i * args.x.strides[last]] : y[i * args.y.strides[last]];
    });
}

// NaN if either is, as in NumPy.
float larger_of(float a, float b) { return a >= b || a != a ? a : b; }
float smaller_of(float a, float b) { return a <= b || a != a ? a : b; }

#define TALLOW_FUNCTION(name, value) \
    {name, [](const ElementwiseArgs& args) { each(args, [](float a, float b) { return value; }); }, false}
#define TALLOW_COMPARISON(name, value) \
    {name, [](const ElementwiseArgs& args) { each(args, [](float a, float b) { return value; }); }, true}
#define TALLOW_UNARY(name, value) \
    {name, [](const ElementwiseArgs& args) { each(args, [](float a, float) { return value; }); }, false}
constexpr Elementwise functions[] = {
    TALLOW_FUNCTION("add", a + b),
    TALLOW_FUNCTION("subtract", a - b),
    TALLOW_FUNCTION("multiply", a * b),
    TALLOW_FUNCTION("divide", a / b),
    TALLOW_FUNCTION("maximum", larger_of(a, b)),
    TALLOW_FUNCTION("minimum", smaller_of(a, b)),
    TALLOW_COMPARISON("equal", a == b),
    TALLOW_COMPARISON("not_equal", a != b),
    TALLOW_COMPARISON("less", a < b),
    TALLOW_COMPARISON("less_equal", a <= b),
    TALLOW_COMPARISON("greater", a > b),
    TALLOW_COMPARISON("greater_equal", a >= b),
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
    {"where", choose, false, true},
};
#undef TALLOW_FUNCTION
#undef TALLOW_COMPARISON
#undef TALLOW_UNARY

}  // namespace

const Elementwise* elementwise(const char* name) {
    for (const Elementwise& function : functions)
        if (std::strcmp(function.name, name) == 0) return &function;
    return nullptr;
}

}  // namespace tallow
