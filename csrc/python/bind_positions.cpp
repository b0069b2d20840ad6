#include <nanobind/stl/optional.h>

#include <optional>
#include <stdexcept>

#include "ops/positions.h"
#include "python/array.h"
#include "python/bind.h"
#include "python/tape.h"

namespace nb = nanobind;

namespace tallow {

namespace {

void require(bool fits) {
    if (!fits) throw std::invalid_argument("positions: arrays do not fit");
}

}  // namespace

void bind_positions(nb::module_& m) {
    m.def("next_positions", [](const Array& out, const Array& lengths, const std::optional<Array>& counts) {
        require(out.ndim == 2 && out.contiguous() && lengths.ndim == 1 && lengths.contiguous() &&
                lengths.shape[0] == out.shape[0] &&
                (!counts || (counts->ndim == 1 && counts->contiguous() && counts->shape[0] == out.shape[0])));
        const PositionsArgs args{out.as<std::int64_t>(DType::i64, "out"), lengths.as<const std::int64_t>(DType::i64, "lengths"),
                                 counts ? counts->as<const std::int64_t>(DType::i64, "counts") : nullptr,
                                 out.shape[0], out.shape[1]};
        perform([args] { next_positions(args); });
    }, nb::arg("out"), nb::arg("lengths"), nb::arg("counts").none());

    m.def("gather_rows", [](const Array& out, const Array& table, const Array& ids) {
        const std::int64_t width = table.ndim == 2 ? table.shape[1] : -1;
        require(table.rows_contiguous() && table.strides[0] % 4 == 0 && out.contiguous() && ids.contiguous() &&
                out.size() == ids.size() * width);
        const GatherArgs args{out.as<float>(DType::f32, "out"), table.as<const float>(DType::f32, "table"), table.shape[0],
                              table.strides[0] / 4, ids.as<const std::int64_t>(DType::i64, "ids"), ids.size(), width};
        perform([args] { gather_rows(args); });
    });

    m.def("rotary_angles", [](const Array& cos, const Array& sin, const Array& positions, const Array& frequencies, float factor) {
        const std::int64_t count = positions.size(), pairs = frequencies.size();
        require(cos.contiguous() && sin.contiguous() && positions.contiguous() && frequencies.contiguous() &&
                cos.size() == count * pairs && sin.size() == count * pairs);
        const AnglesArgs args{cos.as<float>(DType::f32, "cos"), sin.as<float>(DType::f32, "sin"),
                              positions.as<const std::int64_t>(DType::i64, "positions"),
                              frequencies.as<const float>(DType::f32, "frequencies"), count, pairs, factor};
        perform([args] { rotary_angles(args); });
    });

    m.def("rope", [](const Array& out, const Array& x, const Array& cos, const Array& sin) {
        require(x.ndim == 4 && out.ndim == 4 && cos.ndim == 3 && sin.ndim == 3 && x.shape[3] % 2 == 0 && out.contiguous() &&
                out.writable && x.rows_contiguous() && cos.contiguous() && sin.contiguous());
        const std::int64_t b = x.shape[0], n = x.shape[1], heads = x.shape[2], pairs = x.shape[3] / 2;
        for (int i = 0; i < 4; ++i) require(out.shape[i] == x.shape[i] && x.strides[i] % 4 == 0);
        for (const Array* a : {&cos, &sin})
            require((a->shape[0] == 1 || a->shape[0] == b) && a->shape[0] == cos.shape[0] && a->shape[1] == n && a->shape[2] == pairs);
        const RopeArgs args{out.as<float>(DType::f32, "out"), x.as<const float>(DType::f32, "x"),
                            x.strides[0] / 4, x.strides[1] / 4, x.strides[2] / 4,
                            cos.as<const float>(DType::f32, "cos"), sin.as<const float>(DType::f32, "sin"),
                            cos.shape[0] == 1 ? 0 : n * pairs, n, heads, pairs};
        perform([args, b] { rope(args, b); });
    });
}

}  // namespace tallow
