#include "ops/rowwise.h"

#include <nanobind/stl/optional.h>

#include <optional>
#include <stdexcept>

#include "python/array.h"
#include "python/bind.h"
#include "python/tape.h"

namespace nb = nanobind;

namespace tallow {

namespace {

// A result and an operand of the same shape, as rows of adjacent numbers.
void require_rows(const Array& out, const Array& x) {
    const bool fits = x.ndim == 2 && out.ndim == 2 && out.shape[0] == x.shape[0] && out.shape[1] == x.shape[1];
    if (!fits || !x.rows_contiguous() || !out.contiguous()) throw std::invalid_argument("rows: arrays do not fit");
}

}  // namespace

void bind_rowwise(nb::module_& m) {
    m.def("activate", [](const Array& out, const Array& x, const std::optional<Array>& up, int activation) {
        require_rows(out, x);
        if (up) require_rows(out, *up);
        if (activation < 0 || activation > static_cast<int>(Activation::relu)) throw std::invalid_argument("no such activation");
        const ActivationArgs args{out.as<float>(DType::f32, "out"),
                                  x.as<const float>(DType::f32, "x"),
                                  up ? up->as<const float>(DType::f32, "up") : nullptr,
                                  x.shape[0],
                                  x.shape[1],
                                  x.shape[1],
                                  x.strides[0] / 4,
                                  up ? up->strides[0] / 4 : 0,
                                  static_cast<Activation>(activation)};
        perform([args] { activate(args); });
    }, nb::arg("out"), nb::arg("x"), nb::arg("up").none(), nb::arg("activation"));

    m.def("softmax", [](const Array& out, const Array& x, bool log) {
        require_rows(out, x);
        const SoftmaxArgs args{out.as<float>(DType::f32, "out"), x.as<const float>(DType::f32, "x"), x.shape[0], x.shape[1],
                               x.shape[1], x.strides[0] / 4, log};
        perform([args] { softmax(args); });
    });

    m.def("argmax", [](const Array& out, const Array& x) {
        const bool fits = x.ndim == 2 && out.ndim == 1 && out.shape[0] == x.shape[0] && x.shape[1] > 0;
        if (!fits || !x.rows_contiguous() || !out.contiguous()) throw std::invalid_argument("argmax: arrays do not fit");
        const ArgmaxArgs args{out.as<std::int64_t>(DType::i64, "out"), x.as<const float>(DType::f32, "x"), x.shape[0], x.shape[1],
                              x.strides[0] / 4};
        perform([args] { argmax(args); });
    });

    m.def("top_logprobs", [](const Array& ids, const Array& values, const Array& x, const Array& given) {
        const bool fits = x.ndim == 2 && ids.ndim == 2 && values.ndim == 2 && given.ndim == 1 && x.shape[1] > 0 &&
                          given.shape[0] == x.shape[0] && ids.shape[0] == x.shape[0] && values.shape[0] == x.shape[0] &&
                          ids.shape[1] == values.shape[1] && ids.shape[1] >= 1 && ids.shape[1] - 1 <= x.shape[1];
        if (!fits || !x.rows_contiguous() || !ids.contiguous() || !values.contiguous() || !given.contiguous())
            throw std::invalid_argument("top_logprobs: arrays do not fit");
        const LogprobArgs args{ids.as<std::int64_t>(DType::i64, "ids"),
                               values.as<float>(DType::f32, "values"),
                               x.as<const float>(DType::f32, "x"),
                               given.as<const std::int64_t>(DType::i64, "given"),
                               x.shape[0],
                               x.shape[1],
                               ids.shape[1] - 1,
                               x.strides[0] / 4};
        perform([args] { top_logprobs(args); });
    });
}

}  // namespace tallow
