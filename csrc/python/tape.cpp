#include "python/tape.h"

#include <stdexcept>

#include "python/bind.h"

namespace nb = nanobind;

namespace tallow {

namespace {
thread_local Tape* recording = nullptr;
}

Tape* Tape::of_this_thread() { return recording; }

void Tape::start() {
    if (recording) throw std::runtime_error("this thread is recording already");
    recording = this;
}

void Tape::stop() {
    if (recording == this) recording = nullptr;
}

void Tape::replay() const {
    for (const std::function<void()>& call : calls_) call();
}

void bind_tape(nb::module_& m) {
    nb::class_<Tape>(m, "Tape")
        .def(nb::init<>())
        .def("start", &Tape::start)
        .def("stop", &Tape::stop)
        .def("replay", &Tape::replay, nb::call_guard<nb::gil_scoped_release>())
        .def("__len__", &Tape::size);
    m.def("recording", [] { return Tape::of_this_thread() != nullptr; });
}

}  // namespace tallow
