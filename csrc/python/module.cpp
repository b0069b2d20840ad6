// The Python module tallow._cpu. One bind_*.cpp a kernel family; arguments are checked here, kernels trust them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <new>
#include <stdexcept>

#include "core/buffers.h"
#include "core/copy.h"
#include "core/kernels.h"
#include "core/thread_pool.h"
#include "ops/measure.h"
#include "python/array.h"
#include "python/bind.h"

namespace nb = nanobind;
using namespace tallow;

namespace {

// Memory from the buffer store, lent to NumPy through the buffer protocol.
struct Buffer {
    void* data;
    std::size_t bytes;
    explicit Buffer(std::size_t size) : data(take_buffer(size)), bytes(size) {}
    Buffer(const Buffer&) = delete;
    ~Buffer() { give_buffer(data, bytes); }
};

// Address space whose pages take memory when they are first written, lent likewise.
struct Reserve {
    void* data;
    std::size_t bytes;
    explicit Reserve(std::size_t size) : data(reserve_memory(size ? size : 1)), bytes(size) {
        if (!data) throw std::bad_alloc();
    }
    Reserve(const Reserve&) = delete;
    ~Reserve() { unmap_memory(data, bytes ? bytes : 1); }
};

template <typename T>
int get_buffer(PyObject* self, Py_buffer* view, int flags) {
    T* memory = nb::inst_ptr<T>(self);
    return PyBuffer_FillInfo(view, self, memory->data, static_cast<Py_ssize_t>(memory->bytes), 0, flags);
}

template <typename T>
PyType_Slot buffer_slots[] = {{Py_bf_getbuffer, reinterpret_cast<void*>(get_buffer<T>)}, {0, nullptr}};

std::vector<std::string> supported_levels() {
    std::vector<std::string> names;
    for (int i = 0; i < level_count; ++i)
        if (level_supported(static_cast<Level>(i))) names.push_back(level_name(static_cast<Level>(i)));
    return names;
}

void set_level_by_name(const std::string& name) {
    for (int i = 0; i < level_count; ++i)
        if (name == level_name(static_cast<Level>(i))) return set_level(static_cast<Level>(i));
    throw std::invalid_argument("no level " + name);
}

}  // namespace

NB_MODULE(_cpu, m) {
    nb::set_leak_warnings(false);  // models that are kept loaded live until the process ends
    m.doc() = "Tallow's CPU kernels.";
    m.def("register_numpy", &register_numpy);
    m.def("level", [] { return std::string(level_name(active_level())); });
    m.def("supported_levels", &supported_levels);
    m.def("set_level", &set_level_by_name);
    m.def("get_num_threads", [] { return ThreadPool::instance().threads(); });
    m.def("set_num_threads", [](int count) { ThreadPool::instance().set_threads(count); });
    m.def("release_buffers", &release_buffers);
    m.def("measure_multiply_add", &measure_multiply_add, nb::call_guard<nb::gil_scoped_release>());
    m.def("measure_read", &measure_read, nb::call_guard<nb::gil_scoped_release>());
    m.def("copy_bytes", [](const Array& to, const Array& from) {
        const std::int64_t n = to.size();
        if (!to.contiguous() || !from.contiguous() || from.size() != n) throw std::invalid_argument("copy_bytes: arrays do not fit");
        void* out = to.as<std::uint8_t>(DType::u8, "to");
        const void* in = from.as<const std::uint8_t>(DType::u8, "from");
        nb::gil_scoped_release release;
        copy_bytes(out, in, static_cast<std::size_t>(n));
    });
    nb::class_<Buffer>(m, "Buffer", nb::type_slots(buffer_slots<Buffer>)).def(nb::init<std::size_t>());
    nb::class_<Reserve>(m, "Reserve", nb::type_slots(buffer_slots<Reserve>)).def(nb::init<std::size_t>());
    bind_arithmetic(m);
    bind_conv(m);
    bind_linear(m);
    bind_attention(m);
    bind_norm(m);
    bind_positions(m);
    bind_rowwise(m);
    bind_strings(m);
    bind_search(m);
    bind_tape(m);
}
