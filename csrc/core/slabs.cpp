#include "core/slabs.h"

#include <algorithm>
#include <mutex>
#include <new>

#include "core/platform.h"

namespace tallow {

namespace {

constexpr std::size_t line = 64, slab_bytes = std::size_t(16) << 20;

struct Slab {
    std::size_t bytes, used = 0;
    unsigned char* memory;

    explicit Slab(std::size_t size) : bytes(size), memory(static_cast<unsigned char*>(map_memory(size, true))) {
        if (!memory) throw std::bad_alloc();
    }
    Slab(const Slab&) = delete;
    ~Slab() { unmap_memory(memory, bytes); }
};

struct Filling {
    std::mutex mutex;
    std::weak_ptr<Slab> slab;
};

// Never destroyed, and locked while a process forks, as the buffers' store is.
Filling* const filling = [] {
    at_fork([] { filling->mutex.lock(); }, [] { filling->mutex.unlock(); }, [] { filling->mutex.unlock(); });
    return new Filling();
}();

}  // namespace

std::shared_ptr<void> take_lasting(std::size_t bytes) {
    bytes = std::max(bytes, line);
    if (bytes > slab_bytes / 2) {
        auto own = std::make_shared<Slab>(bytes);
        return {own, own->memory};
    }
    std::lock_guard lock(filling->mutex);
    std::shared_ptr<Slab> slab = filling->slab.lock();
    if (!slab || slab->bytes - slab->used < bytes) filling->slab = slab = std::make_shared<Slab>(slab_bytes);
    unsigned char* memory = slab->memory + slab->used;
    slab->used += (bytes + line - 1) / line * line;
    return {slab, memory};
}

}  // namespace tallow
