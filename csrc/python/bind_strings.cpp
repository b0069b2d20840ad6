// Lists of strings as GGUF has them: each after its length, 8 bytes. Vocabularies have hundreds of thousands.
#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "python/bind.h"

namespace nb = nanobind;

namespace tallow {

namespace {

// Bytes of an object with the buffer protocol, for as long as this lives.
class Bytes {
public:
    explicit Bytes(nb::handle object) {
        if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) nb::raise_python_error();
    }
    ~Bytes() { PyBuffer_Release(&view_); }
    Bytes(const Bytes&) = delete;

    const char* data() const { return static_cast<const char*>(view_.buf); }
    std::uint64_t size() const { return static_cast<std::uint64_t>(view_.len); }

private:
    Py_buffer view_;
};

// The length of the string at `position`, which moves to the string's first byte. Throws std::out_of_range where the
// string does not end within the bytes.
std::uint64_t next_length(const Bytes& bytes, std::uint64_t& position) {
    std::uint64_t length;
    if (position > bytes.size() || bytes.size() - position < 8) throw std::out_of_range("cut off");
    std::memcpy(&length, bytes.data() + position, 8);
    position += 8;
    if (length > bytes.size() - position) throw std::out_of_range("cut off");
    return length;
}

nb::object decoded(const char* data, std::uint64_t length) {
    PyObject* text = PyUnicode_DecodeUTF8(data, static_cast<Py_ssize_t>(length), nullptr);
    if (!text) nb::raise_python_error();
    return nb::steal(text);
}

// A string, or its parts before and after the first space, the second empty if there is none.
nb::object read(const char* data, std::uint64_t length, bool pairs) {
    if (!pairs) return decoded(data, length);
    const auto* space = static_cast<const char*>(std::memchr(data, ' ', length));
    const std::uint64_t first = space ? static_cast<std::uint64_t>(space - data) : length;
    const std::uint64_t second = space ? first + 1 : length;
    return nb::make_tuple(decoded(data, first), decoded(data + second, length - second));
}

}  // namespace

void bind_strings(nb::module_& m) {
    m.def("skip_strings", [](nb::handle buffer, std::uint64_t position, std::uint64_t count) {
        const Bytes bytes(buffer);
        for (; count > 0; --count) {
            const std::uint64_t length = next_length(bytes, position);
            position += length;
        }
        return position;
    });
    m.def("read_strings", [](nb::handle buffer, std::uint64_t position, std::uint64_t count, bool pairs) {
        const Bytes bytes(buffer);
        nb::list strings;
        for (; count > 0; --count) {
            const std::uint64_t length = next_length(bytes, position);
            strings.append(read(bytes.data() + position, length, pairs));
            position += length;
        }
        return strings;
    });
}

}  // namespace tallow
