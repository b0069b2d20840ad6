#include <nanobind/stl/string.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "core/background.h"
#include "python/bind.h"
#include "text/byte_pairs.h"
#include "text/strings.h"

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

    std::string_view view() const { return {static_cast<const char*>(view_.buf), static_cast<std::size_t>(view_.len)}; }

private:
    Py_buffer view_;
};

// A list of strings, and the bytes that it lies in.
struct StringList {
    Bytes bytes;
    Strings strings;

    StringList(nb::handle buffer, std::uint64_t begin, std::uint64_t count)
        : bytes(buffer), strings(bytes.view(), begin, count) {}

    nb::object get(std::int64_t i) const {
        if (i < 0 || i >= strings.size()) throw std::out_of_range("no such string");
        const std::string_view text = strings[i];
        PyObject* decoded = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), nullptr);
        if (!decoded) nb::raise_python_error();
        return nb::steal(decoded);
    }
};

// Byte pairs over two lists, which are read in the background: a vocabulary's tables take milliseconds to make.
class PairEncoder {
public:
    PairEncoder(nb::object tokens, nb::object merges, bool whole_words) : tokens_(tokens), merges_(merges) {
        const Strings& all = nb::cast<const StringList&>(tokens).strings;
        const Strings& listed = nb::cast<const StringList&>(merges).strings;
        made_ = do_later([this, &all, &listed, whole_words] { pairs_ = std::make_unique<BytePairs>(all, listed, whole_words); });
    }
    PairEncoder(const PairEncoder&) = delete;
    ~PairEncoder() {
        try {
            made_->wait();
        } catch (...) {  // nobody has used it
        }
    }

    const BytePairs& pairs() const {
        if (!made_->done()) {
            nb::gil_scoped_release release;
            made_->wait();
        }
        made_->wait();
        return *pairs_;
    }

    nb::list encode(nb::list words) const {
        const BytePairs& made = pairs();
        std::vector<std::int64_t> ids;
        for (nb::handle word : words) {
            Py_ssize_t size;
            const char* text = PyUnicode_AsUTF8AndSize(word.ptr(), &size);
            if (!text) nb::raise_python_error();
            made.encode({text, static_cast<std::size_t>(size)}, ids);
        }
        nb::list result;
        for (const std::int64_t id : ids) result.append(id);
        return result;
    }

private:
    nb::object tokens_, merges_;
    std::unique_ptr<BytePairs> pairs_;
    std::shared_ptr<Task> made_;
};

}  // namespace

void bind_strings(nb::module_& m) {
    nb::class_<StringList>(m, "Strings")
        .def(nb::init<nb::handle, std::uint64_t, std::uint64_t>())
        .def_prop_ro("end", [](const StringList& list) { return list.strings.end(); })
        .def("__len__", [](const StringList& list) { return list.strings.size(); })
        .def("__getitem__", &StringList::get);
    nb::class_<PairEncoder>(m, "PairEncoder")
        .def(nb::init<nb::object, nb::object, bool>())
        .def("find", [](const PairEncoder& encoder, const std::string& token) { return encoder.pairs().find(token); })
        .def("encode", &PairEncoder::encode);
}

}  // namespace tallow
