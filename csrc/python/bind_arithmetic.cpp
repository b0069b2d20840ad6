#include <stdexcept>

#include "ops/arithmetic.h"
#include "python/array.h"
#include "python/bind.h"
#include "python/tape.h"

namespace nb = nanobind;

namespace tallow {

void bind_arithmetic(nb::module_& m) {
    m.def("add", [](const Array& out, const Array& x, const Array& y) {
        const std::int64_t n = out.size();
        if (!out.contiguous() || !x.contiguous() || !y.contiguous() || x.size() != n || y.size() != n)
            throw std::invalid_argument("add: arrays do not fit");
        const AddArgs args{out.as<float>(DType::f32, "out"), x.as<const float>(DType::f32, "x"), y.as<const float>(DType::f32, "y"), n};
        perform([args] { add(args); });
    });
}

}  // namespace tallow
