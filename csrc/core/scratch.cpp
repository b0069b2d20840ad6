#include "core/scratch.h"

#include <new>

#include "core/platform.h"

namespace tallow {

namespace {

struct Scratch {
    void* memory = nullptr;
    std::size_t bytes = 0;

    ~Scratch() {
        if (memory) unmap_memory(memory, bytes);
    }
};

thread_local Scratch scratch;

}  // namespace

void* thread_scratch(std::size_t bytes) {
    if (bytes <= scratch.bytes) return scratch.memory;
    constexpr std::size_t step = std::size_t(1) << 18;
    const std::size_t wanted = (bytes + step - 1) / step * step;
    void* memory = map_memory(wanted, true);
    if (!memory) throw std::bad_alloc();
    if (scratch.memory) unmap_memory(scratch.memory, scratch.bytes);
    scratch.memory = memory;
    scratch.bytes = wanted;
    return memory;
}

}  // namespace tallow
