// A NumPy array as kernels see it, read straight from the object: NumPy refuses to export bfloat16 and read-only arrays
// through its protocols, and those cost a microsecond an array.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>

namespace tallow {

enum class DType : std::uint8_t { f32, f16, bf16, f64, i8, i16, i32, i64, u8, u16, u32, u64, boolean, other };

const char* dtype_name(DType dtype);
std::size_t dtype_size(DType dtype);

struct Array {
    void* data = nullptr;
    int ndim = 0;
    const std::intptr_t* shape = nullptr;
    const std::intptr_t* strides = nullptr;  // in bytes
    DType dtype = DType::other;
    bool writable = false;

    std::int64_t size() const;
    bool contiguous() const;  // in C order
    bool rows_contiguous() const;  // the last axis has unit stride

    // The data as T, after checking dtype and alignment, and writability for an output. Raise tallow.errors through std exceptions:
    // a wrong call is a bug in Tallow's own Python code, so messages are for its authors.
    template <typename T>
    T* as(DType wanted, const char* what) const {
        check(wanted, what);
        return static_cast<T*>(data);
    }
    void check(DType wanted, const char* what) const;
};

// Tells which NumPy dtype object stands for which DType; called once when the backend is imported.
void register_numpy(nanobind::handle array_type, nanobind::dict dtypes);
bool read_array(PyObject* object, Array& out);

}  // namespace tallow

namespace nanobind::detail {

template <>
struct type_caster<tallow::Array> {
    NB_TYPE_CASTER(tallow::Array, const_name("numpy.ndarray"))
    bool from_python(handle source, std::uint8_t, cleanup_list*) noexcept { return tallow::read_array(source.ptr(), value); }
};

}  // namespace nanobind::detail
