#include "core/buffers.h"

#include <iterator>
#include <list>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "core/platform.h"

namespace tallow {

namespace {

constexpr std::size_t most_kept = std::size_t(64) << 20;
constexpr std::size_t page = 4096;

struct Kept {
    std::size_t capacity;
    void* memory;
};
using Age = std::list<Kept>;  // the one that was given last stands last

struct Store {
    std::mutex mutex;
    Age kept;
    std::multimap<std::size_t, Age::iterator> by_capacity;  // those of one capacity in the order of their age
    std::size_t total = 0;

    void* take(std::multimap<std::size_t, Age::iterator>::iterator found) {
        void* memory = found->second->memory;
        total -= found->first;
        kept.erase(found->second);
        by_capacity.erase(found);
        return memory;
    }
    Kept take_oldest() {
        const Kept oldest = kept.front();
        take(by_capacity.lower_bound(oldest.capacity));
        return oldest;
    }
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
        // The one that was used last: some of it may still be in the caches.
        auto found = store.by_capacity.upper_bound(capacity);
        if (found != store.by_capacity.begin() && (--found)->first == capacity) return store.take(found);
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
    if (capacity > most_kept) return unmap_memory(memory, capacity);
    // What has not been asked for the longest makes room: work of other sizes than before would else find no memory.
    std::vector<Kept> gone;
    {
        std::lock_guard lock(store.mutex);
        while (store.total + capacity > most_kept) gone.push_back(store.take_oldest());
        store.kept.push_back({capacity, memory});
        store.by_capacity.emplace(capacity, std::prev(store.kept.end()));
        store.total += capacity;
    }
    for (const Kept& buffer : gone) unmap_memory(buffer.memory, buffer.capacity);
}

void release_buffers() {
    Store& store = *the_store;
    Age kept;
    {
        std::lock_guard lock(store.mutex);
        kept.swap(store.kept);
        store.by_capacity.clear();
        store.total = 0;
    }
    for (const Kept& buffer : kept) unmap_memory(buffer.memory, buffer.capacity);
}

}  // namespace tallow
