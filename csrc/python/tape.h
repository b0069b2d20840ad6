// A tape of kernel calls, to be run again without Python: the CPU's counterpart of a CUDA graph.
#pragma once

#include <nanobind/nanobind.h>

#include <functional>
#include <utility>
#include <vector>

namespace tallow {

class Tape {
public:
    // Calls of kernels by this thread are written down from start to stop.
    void start();
    void stop();
    static Tape* of_this_thread();

    void add(std::function<void()> call) { calls_.push_back(std::move(call)); }
    void keep(nanobind::handle array) { arrays_.push_back(nanobind::borrow(array)); }
    void replay() const;
    std::size_t size() const { return calls_.size(); }

private:
    std::vector<std::function<void()>> calls_;
    std::vector<nanobind::object> arrays_;  // whose memory the calls read and write
};

// Every kernel's binding ends in this: `call` holds its arguments by value, needs no GIL, and reads what changes from
// run to run (tokens, positions, lengths) from memory.
template <typename Call>
void perform(Call call) {
    if (Tape* tape = Tape::of_this_thread()) tape->add(call);
    nanobind::gil_scoped_release release;
    call();
}

}  // namespace tallow
