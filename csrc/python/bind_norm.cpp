#include <stdexcept>

#include "ops/norm.h"
#include "python/array.h"
#include "python/bind.h"
#include "python/tape.h"

namespace nb = nanobind;

namespace tallow {

namespace {

NormArgs norm_args(const Array& out, const Array& x, const Array& weight, const Array* bias, float eps) {
    const std::int64_t width = x.ndim == 2 ? x.shape[1] : -1;
    const bool fits = x.ndim == 2 && out.ndim == 2 && out.shape[0] == x.shape[0] && out.shape[1] == width &&
                      weight.size() == width && (!bias || bias->size() == width);
    if (!fits || !x.rows_contiguous() || !out.contiguous() || !weight.contiguous() || (bias && !bias->contiguous()))
        throw std::invalid_argument("norm: arrays do not fit");
    return {out.as<float>(DType::f32, "out"),
            x.as<const float>(DType::f32, "x"),
            weight.as<const float>(DType::f32, "weight"),
            bias ? bias->as<const float>(DType::f32, "bias") : nullptr,
            x.shape[0],
            width,
            width,
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
