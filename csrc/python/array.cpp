#include "python/array.h"

#include <cstring>
#include <stdexcept>

#include "python/tape.h"

namespace nb = nanobind;

namespace tallow {

namespace {

// The head of NumPy's array object. Its layout is part of NumPy's stable ABI (PyArrayObject_fields), the same in 1.x
// and 2.x, and outlives a build: no header of NumPy is needed.
struct NumpyArray {
    PyObject_HEAD
    char* data;
    int nd;
    std::intptr_t* dimensions;
    std::intptr_t* strides;
    PyObject* base;
    PyObject* descr;
    int flags;
};
constexpr int flag_writeable = 0x0400;

constexpr int dtype_count = static_cast<int>(DType::other);
PyTypeObject* ndarray_type = nullptr;
PyObject* descriptors[dtype_count] = {};

DType dtype_of(PyObject* descr) {
    for (int i = 0; i < dtype_count; ++i)
        if (descriptors[i] == descr) return static_cast<DType>(i);
    for (int i = 0; i < dtype_count; ++i)  // an equal dtype in another object, as unpickling makes
        if (descriptors[i] && PyObject_RichCompareBool(descriptors[i], descr, Py_EQ) == 1) return static_cast<DType>(i);
    PyErr_Clear();
    return DType::other;
}

}  // namespace

const char* dtype_name(DType dtype) {
    constexpr const char* names[] = {"float32", "float16", "bfloat16", "float64", "int8",   "int16",  "int32",
                                     "int64",   "uint8",   "uint16",   "uint32",  "uint64", "bool",   "other"};
    return names[static_cast<int>(dtype)];
}

std::size_t dtype_size(DType dtype) {
    constexpr std::size_t sizes[] = {4, 2, 2, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1, 0};
    return sizes[static_cast<int>(dtype)];
}

std::int64_t Array::size() const {
    std::int64_t total = 1;
    for (int i = 0; i < ndim; ++i) total *= shape[i];
    return total;
}

bool Array::contiguous() const {
    if (size() == 0) return true;
    std::intptr_t expected = static_cast<std::intptr_t>(dtype_size(dtype));
    for (int i = ndim - 1; i >= 0; --i) {
        if (shape[i] != 1 && strides[i] != expected) return false;
        expected *= shape[i];
    }
    return true;
}

bool Array::rows_contiguous() const {
    return ndim > 0 && (size() == 0 || shape[ndim - 1] == 1 || strides[ndim - 1] == static_cast<std::intptr_t>(dtype_size(dtype)));
}

void Array::check(DType wanted, const char* what) const {
    if (dtype != wanted)
        throw std::invalid_argument(std::string(what) + ": expected " + dtype_name(wanted) + ", got " + dtype_name(dtype));
    if (reinterpret_cast<std::uintptr_t>(data) % dtype_size(dtype) && size())
        throw std::invalid_argument(std::string(what) + ": elements are not aligned");
}

void register_numpy(nb::handle array_type, nb::dict dtypes) {
    ndarray_type = reinterpret_cast<PyTypeObject*>(array_type.inc_ref().ptr());
    for (int i = 0; i < dtype_count; ++i) {
        nb::str name(dtype_name(static_cast<DType>(i)));
        descriptors[i] = dtypes.contains(name) ? nb::object(dtypes[name]).release().ptr() : nullptr;
    }
}

bool read_array(PyObject* object, Array& out) {
    if (!ndarray_type || !PyObject_TypeCheck(object, ndarray_type)) return false;
    const auto* array = reinterpret_cast<const NumpyArray*>(object);
    if (Tape* tape = Tape::of_this_thread()) tape->keep(object);
    out.data = array->data;
    out.ndim = array->nd;
    out.shape = array->dimensions;
    out.strides = array->strides;
    out.dtype = dtype_of(array->descr);
    out.writable = array->flags & flag_writeable;
    return true;
}

}  // namespace tallow
