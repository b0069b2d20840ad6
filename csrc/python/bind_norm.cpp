#include <stdexcept>

#include "ops/norm.h"
#include "python/array.h"
#include "python/bind.h"
#include "python/tape.h"

namespace nb = nanobind;

namespace tallow {

namespace {

// x: rows, or groups of rows; out has the rows of all groups.
NormArgs norm_args(const Array& out, const Array& x, const Array& weight, const Array* bias, float eps) {
    const bool grouped = x.ndim == 3;
    const std::int64_t width = x.ndim == 2 || grouped ? x.shape[x.ndim - 1] : -1;
    const std::int64_t inner = grouped ? x.shape[1] : 1, rows = width < 0 ? -1 : x.shape[0] * inner;
    const bool fits = width >= 0 && out.ndim == 2 && out.shape[0] == rows && out.shape[1] == width &&
                      weight.size() == width && (!bias || bias->size() == width);
    if (!fits || !x.rows_contiguous() || !out.contiguous() || !weight.contiguous() || (bias && !bias->contiguous()))
        throw std::invalid_argument("norm: arrays do not fit");
    return {out.as<float>(DType::f32, "out"),
            x.as<const float>(DType::f32, "x"),
            weight.as<const float>(DType::f32, "weight"),
            bias ? bias->as<const float>(DType::f32, "bias") : nullptr,
            rows,
            width,
            width,
            grouped ? x.strides[1] / 4 : 0,
            inner,
            x.strides[0] / 4,
            eps};
}

}  // namespace

void bind_norm(nb::module_& m) {
    m.def("layer_norm", [](const Array& out, const Array& x, const Array& weight, const Array& bias, float eps) {
        const NormArgs args = norm_args(out, x, weight, &bias, eps);
        perform([args] { layer_norm(args); });
    });
    m.def("rms_norm", [](const Array& out, const Array& x, const Array& weight, float eps) {
        const NormArgs args = norm_args(out, x, weight, nullptr, eps);
        perform([args] { rms_norm(args); });
    });
}

}  // namespace tallow
