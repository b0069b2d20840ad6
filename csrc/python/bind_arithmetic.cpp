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
ElementwiseOperand operand(const Array& x, const Array& out, const char* what) {
    ElementwiseOperand result{x.as<const float>(DType::f32, what), {}};
    if (x.ndim != out.ndim) throw std::invalid_argument("elementwise: arrays do not fit");
    for (int axis = 0; axis < x.ndim; ++axis) {
        if (x.shape[axis] != out.shape[axis] || x.strides[axis] % 4)
            throw std::invalid_argument("elementwise: arrays do not fit");
        result.strides[axis] = x.strides[axis] / 4;
    }
    return result;
}

}  // namespace

void bind_arithmetic(nb::module_& m) {
    // `y`: the second operand, or None for `scalar`, which functions of one operand do not read.
    m.def("elementwise", [](const char* name, const Array& out, const Array& x, const std::optional<Array>& y, double scalar) {
        const Elementwise function = elementwise(name);
        if (!function || !out.contiguous() || out.ndim < 1 || out.ndim > most_axes)
            throw std::invalid_argument("elementwise: no such function, or arrays do not fit");
        ElementwiseArgs args{};
        args.out = out.as<float>(DType::f32, "out");
        args.x = operand(x, out, "x");
        if (y) args.y = operand(*y, out, "y");
        args.scalar = static_cast<float>(scalar);
        args.axes = out.ndim;
        for (int axis = 0; axis < out.ndim; ++axis) args.shape[axis] = out.shape[axis];
        if (out.size()) perform([args, function] { function(args); });
    }, nb::arg("name"), nb::arg("out"), nb::arg("x"), nb::arg("y").none(), nb::arg("scalar"));
}

}  // namespace tallow
