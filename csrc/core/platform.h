// What is the operating system's or the processor's own: everything that is not portable C++ lies in platform.cpp.
#pragma once

#include <cstddef>

namespace tallow {

// The instruction sets that kernels are built for, from the plainest to the richest of each architecture.
enum class Level { sse42, avx2, avxvnni, avx512, avx512vnni, amx, neon, dotprod, i8mm };
constexpr int level_count = 9;

const char* level_name(Level level);
bool level_supported(Level level);  // by this processor and its operating system
Level best_level();                 // the richest supported one

int usable_cores();       // physical cores that this process may use: affinity and the cgroup's quota are honoured
// Zeroed pages, if wished large ones where the system has them; nullptr when refused. Large pages are quicker to find for a
// processor, and a first touch of all of one takes a seventh of the time of 512 small ones.
void* map_memory(std::size_t bytes, bool large_pages);
void* reserve_memory(std::size_t bytes);  // zeroed pages that take memory one by one, when first written; nullptr when refused
void unmap_memory(void* memory, std::size_t bytes);
void drop_pages(const void* begin, std::size_t bytes);  // of a mapped file, which need not be held in memory any longer
// What to do in a process that forks: before, and then in the parent and in the child.
void at_fork(void (*before)(), void (*in_parent)(), void (*in_child)());
void relax();  // tells the processor that this is a waiting loop

}  // namespace tallow
