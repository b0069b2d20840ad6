#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include "core/kernels.h"
#include "ops/linear.h"
#include "ops/packing.h"
#include "python/array.h"
#include "python/bind.h"
#include "python/tape.h"

namespace nb = nanobind;

namespace tallow {

namespace {

Storage storage_of(DType dtype, const char* what) {
    switch (dtype) {
        case DType::f32: return Storage::f32;
        case DType::f16: return Storage::f16;
        case DType::bf16: return Storage::bf16;
        case DType::i8: return Storage::i8;
        default: throw std::invalid_argument(std::string(what) + ": expected float32, float16, bfloat16 or int8, got " + dtype_name(dtype));
    }
}

// source (n, k) in floats; or in int8, with scales (n, k / group), which are taken over as they are.
std::unique_ptr<Matrix> pack(const Array& source, int storage, std::int64_t group, std::optional<Array> scales) {
    const auto wanted = static_cast<Storage>(storage);
    const std::int64_t size = static_cast<std::int64_t>(dtype_size(source.dtype));
    PackArgs args{};
    args.from = storage_of(source.dtype, "pack");
    const bool bytes = wanted == Storage::i8 || wanted == Storage::i8_groups;
    bool fits = source.ndim == 2 && storage >= 0 && storage < storage_count && !in_blocks(wanted);
    fits = fits && source.strides[0] % size == 0 && source.strides[1] % size == 0;
    fits = fits && scales.has_value() == (args.from == Storage::i8) && (bytes || !scales);
    if (!fits) throw std::invalid_argument("pack: no such matrix");
    const std::int64_t n = source.shape[0], k = source.shape[1];
    if (wanted == Storage::i8_groups ? group < 8 || group % 8 || largest_group % group || k % group : group != k)
        throw std::invalid_argument("pack: groups do not fit");
    if (scales) {
        if (!scales->contiguous() || scales->size() != n * (k ? k / group : 1)) throw std::invalid_argument("pack: scales do not fit");
        args.scales = scales->as<const float>(DType::f32, "scales");
    }
    args.source = source.data;
    args.row_stride = source.strides[0] / size;
    args.column_stride = source.strides[1] / size;
    nb::gil_scoped_release release;
    auto matrix = std::make_unique<Matrix>(wanted, n, k, group);
    matrix->pack(args);
    return matrix;
}

// parts: (array, whether it lies in a mapped file); arrays (n, bytes of a row) of GGUF's blocks of that storage, which are
// stacked. They are packed in the background.
std::unique_ptr<Matrix> pack_blocks(nb::list parts, int storage) {
    if (storage < 0 || storage >= storage_count || !in_blocks(static_cast<Storage>(storage)) || parts.size() == 0)
        throw std::invalid_argument("pack_blocks: no such matrix");
    const MatrixKernels& kernels = tallow::kernels().matrix[storage];
    std::vector<BlockRows> rows;
    std::int64_t n = 0, bytes = -1;
    for (nb::handle part : parts) {
        const auto [source, mapped] = nb::cast<std::tuple<Array, bool>>(part);
        if (source.ndim != 2 || source.dtype != DType::u8 || !source.rows_contiguous() || (n && source.shape[1] != bytes))
            throw std::invalid_argument("pack_blocks: no such matrix");
        bytes = source.shape[1];
        n += source.shape[0];
        rows.push_back({static_cast<const unsigned char*>(source.data), source.shape[0], source.strides[0], mapped});
    }
    if (bytes % kernels.source_bytes) throw std::invalid_argument("pack_blocks: rows of no whole blocks");
    auto matrix = std::make_unique<Matrix>(static_cast<Storage>(storage), n, bytes / kernels.source_bytes * kernels.padding,
                                           kernels.group);
    const bool mapped = std::any_of(rows.begin(), rows.end(), [](const BlockRows& part) { return part.mapped; });
    matrix->pack_later(std::move(rows), std::make_shared<nb::object>(parts));
    if (!mapped) {  // the blocks of a whole model would lie in memory twice
        {
            nb::gil_scoped_release release;
            matrix->wait();
        }
        matrix->settle();
    }
    return matrix;
}

void matrix_rows(Matrix& matrix, const Array& out, const Array* ids) {
    const PackedMatrix& m = ready(matrix);
    const std::int64_t count = ids ? ids->size() : m.n;
    if (!out.contiguous() || out.size() != count * m.k || (ids && !ids->contiguous()))
        throw std::invalid_argument("rows: arrays do not fit");
    float* to = out.as<float>(DType::f32, "out");
    const std::int64_t* index = ids ? ids->as<const std::int64_t>(DType::i64, "ids") : nullptr;
    perform([&matrix, index, count, to] {
        const std::int64_t rows = matrix.packed().n;
        for (std::int64_t i = 0; index && i < count; ++i)
            if (index[i] < 0 || index[i] >= rows)
                throw std::out_of_range("row " + std::to_string(index[i]) + " of " + std::to_string(rows));
        matrix.rows(index, count, to);
    });
}

// A matrix with unit stride along its rows.
const float* matrix_of(const Array& a, std::int64_t rows, std::int64_t columns, const char* what) {
    if (a.ndim != 2 || a.shape[0] != rows || a.shape[1] != columns || !a.rows_contiguous() || a.strides[0] % 4)
        throw std::invalid_argument(std::string("linear: ") + what + " does not fit");
    return a.as<const float>(DType::f32, what);
}

void bind_product(const Array& out, const Array& x, Matrix& weight, std::optional<Array> bias, int activation,
                  std::optional<Array> residual, std::optional<Array> scale) {
    const PackedMatrix& w = ready(weight);
    const std::int64_t rows = x.ndim == 2 ? x.shape[0] : -1;
    if (activation < 0 || activation > static_cast<int>(Activation::relu)) throw std::invalid_argument("linear: activation");
    if (!out.writable) throw std::invalid_argument("linear: out is read-only");
    LinearArgs args{};
    args.weight = &w;
    args.x.data = matrix_of(x, rows, w.k, "x");
    args.x.stride = x.strides[0] / 4;
    args.rows = rows;
    args.out = const_cast<float*>(matrix_of(out, rows, w.n, "out"));
    args.out_stride = out.strides[0] / 4;
    if (bias) {
        if (!bias->contiguous() || bias->size() != w.n) throw std::invalid_argument("linear: bias does not fit");
        args.bias = bias->as<const float>(DType::f32, "bias");
    }
    if (scale) {
        if (!scale->contiguous() || scale->size() != w.n) throw std::invalid_argument("linear: scale does not fit");
        args.scale = scale->as<const float>(DType::f32, "scale");
    }
    if (residual) {
        args.residual = matrix_of(*residual, rows, w.n, "residual");
        args.residual_stride = residual->strides[0] / 4;
    }
    args.activation = static_cast<Activation>(activation);
    perform([args] { linear(args); });
}

}  // namespace

const PackedMatrix& ready(Matrix& matrix) {
    if (!matrix.settled()) {
        {
            nb::gil_scoped_release release;
            matrix.wait();
        }
        matrix.settle();
    }
    return matrix.packed();
}

void bind_linear(nb::module_& m) {
    nb::class_<Matrix>(m, "PackedMatrix")
        .def_prop_ro("shape", [](const Matrix& matrix) { return std::make_tuple(matrix.packed().n, matrix.packed().k); })
        .def("settle", [](Matrix& matrix) { ready(matrix); })
        .def_prop_ro("scales_finite", &Matrix::scales_finite)
        .def_prop_ro("nbytes", &Matrix::bytes)
        .def("rows_into", [](Matrix& matrix, const Array& out, const Array& ids) { matrix_rows(matrix, out, &ids); })
        .def("dequantize_into", [](Matrix& matrix, const Array& out) { matrix_rows(matrix, out, nullptr); });
    m.def("pack", &pack, nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
    m.def("pack_blocks", &pack_blocks);
    m.def("linear", &bind_product, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg().none(),
          nb::arg().none() = nb::none());
}

}  // namespace tallow
