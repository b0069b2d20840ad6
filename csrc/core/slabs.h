// Memory for weights, which live long and are read from end to end.
//
// A first touch of a small page costs as much as writing it ten times over, and a model has tens of thousands of them.
// So matrices lie close together in slabs of large pages, where the system has such.
#pragma once

#include <cstddef>
#include <memory>

namespace tallow {

// Zeros at a multiple of 64 bytes. The slab lives as long as anything in it. Throws std::bad_alloc.
std::shared_ptr<void> take_lasting(std::size_t bytes);

}  // namespace tallow
