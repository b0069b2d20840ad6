#include "core/buffers.h"

#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "core/platform.h"

namespace tallow {

namespace {

constexpr std::size_t most_kept = std::size_t(64) << 20;
constexpr std::size_t page = 4096;

struct Store {
    std::mutex mutex;
    std::multimap<std::size_t, void*> kept;  // by capacity
    std::size_t total = 0;
};

// Made when the library is loaded, since a fork must not come in the middle; never destroyed, since arrays may still give
// memory back at exit. In a forked child nobody holds the mutex.
Store* const the_store = [] {
    at_fork([] { the_store->mutex.lock(); }, [] { the_store->mutex.unlock(); }, [] { the_store->mutex.unlock(); });
    return new Store();
}();

// Sizes step by an eighth of their power of two, so that results of nearly the same size share memory.
std::size_t capacity_for(std::size_t bytes) {
    std::size_t step = page;
    while (step * 16 < bytes) step *= 2;
    return (bytes + step - 1) / step * step;
}

}  // namespace

void* take_buffer(std::size_t bytes) {
    const std::size_t capacity = capacity_for(bytes ? bytes : 1);
    Store& store = *the_store;
    {
        std::lock_guard lock(store.mutex);
        if (auto found = store.kept.find(capacity); found != store.kept.end()) {
            void* memory = found->second;
            store.kept.erase(found);
            store.total -= capacity;
            return memory;
        }
    }
    void* memory = map_memory(capacity, true);
    if (!memory) {
        release_buffers();
        memory = map_memory(capacity, true);
    }
    if (!memory) throw std::bad_alloc();
    return memory;
}

void give_buffer(void* memory, std::size_t bytes) {
    const std::size_t capacity = capacity_for(bytes ? bytes : 1);
    Store& store = *the_store;
    if (capacity <= most_kept) {
        std::lock_guard lock(store.mutex);
        if (store.total + capacity <= most_kept) {
            store.kept.emplace(capacity, memory);
            store.total += capacity;
            return;
        }
    }
    unmap_memory(memory, capacity);
}

void release_buffers() {
    Store& store = *the_store;
    std::multimap<std::size_t, void*> kept;
    {
        std::lock_guard lock(store.mutex);
        kept.swap(store.kept);
        store.total = 0;
    }
    for (auto [capacity, memory] : kept) unmap_memory(memory, capacity);
}

}  // namespace tallow
