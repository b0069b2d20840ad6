// Elementwise arithmetic, for what is recorded; NumPy does the rest.
#pragma once

#include <cstdint>

namespace tallow {

struct AddArgs {
    float* out;
    const float *x, *y;
    std::int64_t n;
};

void add(const AddArgs& args);

}  // namespace tallow
