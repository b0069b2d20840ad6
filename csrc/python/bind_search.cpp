#include <new>
#include <stdexcept>

#include "ops/search.h"
#include "python/array.h"
#include "python/bind.h"

namespace nb = nanobind;

namespace tallow {

namespace {

Element element_of(DType dtype) {
    switch (dtype) {
        case DType::f32: return Element::f32;
        case DType::f16: return Element::f16;
        case DType::i8: return Element::i8;
        default: throw std::invalid_argument(std::string("search: vectors of ") + dtype_name(dtype));
    }
}

void make_search(Search* self, const Array& queries, std::int64_t k) {
    if (queries.ndim != 2 || !queries.contiguous() || k < 1) throw std::invalid_argument("search: queries do not fit");
    new (self) Search(queries.as<const float>(DType::f32, "queries"), queries.shape[0], queries.shape[1], k);
}

// vectors (n, width), scales (n,) of any stride.
void add(Search& self, const Array& vectors, const Array& scales, std::int64_t first) {
    const auto size = static_cast<std::int64_t>(dtype_size(vectors.dtype));
    const bool fits = vectors.ndim == 2 && vectors.shape[1] == self.width() && scales.ndim == 1 &&
                      scales.shape[0] == vectors.shape[0] && vectors.rows_contiguous() && size > 0 &&
                      vectors.strides[0] % size == 0 && scales.strides[0] % 4 == 0;
    if (!fits) throw std::invalid_argument("search: vectors do not fit");
    vectors.check(vectors.dtype, "vectors");
    ScoreArgs args{};
    args.vectors = vectors.data;
    args.vector_stride = vectors.strides[0] / size;
    args.element = element_of(vectors.dtype);
    args.scales = scales.as<const float>(DType::f32, "scales");
    args.scale_stride = scales.strides[0] / 4;
    const std::int64_t rows = vectors.shape[0];
    nb::gil_scoped_release release;
    self.add(args, rows, first);
}

void results(Search& self, const Array& scores, const Array& indices) {
    const std::int64_t size = self.queries() * self.found();
    if (!scores.contiguous() || !indices.contiguous() || scores.size() != size || indices.size() != size)
        throw std::invalid_argument("search: results do not fit");
    self.results(scores.as<float>(DType::f32, "scores"), indices.as<std::int64_t>(DType::i64, "indices"));
}

}  // namespace

void bind_search(nb::module_& m) {
    nb::class_<Search>(m, "Search")
        .def("__init__", &make_search)
        .def("add", &add)
        .def("results", &results);
}

}  // namespace tallow
