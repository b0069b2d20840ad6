// Copies of what is read once and used elsewhere, such as weights on their way to a GPU.
#pragma once

#include <cstddef>

namespace tallow {

void copy_bytes(void* to, const void* from, std::size_t bytes);  // by all threads; the ranges must not overlap

}  // namespace tallow
