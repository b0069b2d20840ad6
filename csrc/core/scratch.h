// Memory that a thread works in while it computes a tile, kept for its next tile.
#pragma once

#include <cstddef>

namespace tallow {

// At least `bytes` bytes, aligned to 64, the calling thread's own until its next call. Throws std::bad_alloc.
void* thread_scratch(std::size_t bytes);

}  // namespace tallow
