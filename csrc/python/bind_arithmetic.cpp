#include <optional>
#include <stdexcept>

#include <nanobind/stl/optional.h>

#include "ops/arithmetic.h"
#include "python/array.h"
#include "python/bind.h"
#include "python/tape.h"

namespace nb = nanobind;

namespace tallow {

namespace {

// An operand of the result's shape.
template <typename T>
ElementwiseOperand<T> operand(const Array& x, const Array& out, DType dtype, const char* what) {
    ElementwiseOperand<T> result{x.as<const T>(dtype, what), {}};
    if (x.ndim != out.ndim) throw std::invalid_argument("elementwise: arrays do not fit");
    for (int axis = 0; axis < x.ndim; ++axis) {
        if (x.shape[axis] != out.shape[axis] || x.strides[axis] % static_cast<std::intptr_t>(sizeof(T)))
            throw std::invalid_argument("elementwise: arrays do not fit");
        result.strides[axis] = x.strides[axis] / static_cast<std::intptr_t>(sizeof(T));
    }
    return result;
}

}  // namespace

void bind_arithmetic(nb::module_& m) {
    // `y`: the second operand; anything for functions of one. `condition`: of `where` alone.
    m.def("elementwise", [](const char* name, const Array& out, const Array& x, const Array& y,
                            const std::optional<Array>& condition) {
        const Elementwise* const function = elementwise(name);
        if (!function || condition.has_value() != function->has_condition || !out.contiguous() || out.ndim < 1 ||
            out.ndim > most_axes)
            throw std::invalid_argument("elementwise: no such function, or arrays do not fit");
        ElementwiseArgs args{};
        const DType result = function->compares ? DType::boolean : DType::f32;
        args.out = out.as<void>(result, "out");
        args.x = operand<float>(x, out, DType::f32, "x");
        args.y = operand<float>(y, out, DType::f32, "y");
        if (condition) args.condition = operand<std::uint8_t>(*condition, out, DType::boolean, "condition");
        args.axes = out.ndim;
        for (int axis = 0; axis < out.ndim; ++axis) args.shape[axis] = out.shape[axis];
        if (out.size()) perform([args, function] { function->run(args); });
    }, nb::arg("name"), nb::arg("out"), nb::arg("x"), nb::arg("y"), nb::arg("condition").none());
}

}  // namespace tallow
