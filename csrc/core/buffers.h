// Memory for results, kept for the next result of like size: fresh pages from the system cost more than many kernels.
#pragma once

#include <cstddef>

namespace tallow {

// At least `bytes` bytes, aligned to 64, with whatever was in them before. Throws std::bad_alloc.
void* take_buffer(std::size_t bytes);
void give_buffer(void* memory, std::size_t bytes);  // with the size it was taken with
void release_buffers();                             // hands all that is kept back to the system

}  // namespace tallow
