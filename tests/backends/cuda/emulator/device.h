// A card on the CPU: its blocks and threads, and how they wait for each other. Threads are fibers that take turns where they
// would wait. A thread of the system has one block at a time, so blocks that wait for each other have threads of their own,
// and what a kernel calls __shared__ is thread_local.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace emulator {

constexpr int MOST_THREADS = 1024, WARP = 32;
constexpr size_t STACK = 1 << 16;

struct Index {
    unsigned x = 1, y = 1, z = 1;
};
struct Meeting {  // of threads
    int count = 0;
    unsigned generation = 0;
};
struct Copy {  // or zeros
    void* to;
    const void* from;
    int bytes;
    bool there;
};
struct Product {  // of a warpgroup
    float* sums;
    int count;
    unsigned left[4];
    unsigned long long left_at, right;  // descriptors; the left operand is in shared memory unless 0
    bool keep, transposed;
    void (*run)(const Product&);
};
struct Fiber {
    jmp_buf at;
    ucontext_t first;  // where it begins
    std::unique_ptr<char[]> stack{new char[STACK]};
    bool begun = false, done = true;
    long met = 0;  // how often it has come to its cluster
    const char* waits = nullptr;
    std::vector<std::vector<Copy>> copies{1};  // in groups; the last is open
    std::vector<std::vector<Product>> products{1};  // likewise
};
struct Block;
struct Cluster {  // blocks that run at once, and reach each other's shared memory
    explicit Cluster(int count) : blocks(count) {}
    std::atomic<long> arrived{0};
    std::vector<std::atomic<Block*>> blocks;  // null: has not begun, or has ended
};
struct Block {
    Cluster* cluster = nullptr;
    unsigned char* shared = nullptr;
    size_t size = 0;
    int index = 0, current = 0, count = 0;
    jmp_buf main;
    std::vector<std::unique_ptr<Fiber>> fibers;
    Meeting all, groups[16], warps[MOST_THREADS / WARP];  // groups: by the number of their barrier
    unsigned long long lanes[2][MOST_THREADS];  // what lanes give each other, in turn
    float operands[2][MOST_THREADS / WARP][WARP][12];
};

extern constinit thread_local Block* block;
extern constinit thread_local Index thread_index, block_index;
extern Index grid_size, block_size;
extern std::atomic<long> progress;  // moved on by whatever may end somebody's waiting

[[noreturn]] inline void complain(const char* what) {
    fprintf(stderr, "block %d, thread %d: %s\n", block->index, block->current, what);
    abort();
}

// Makes the check of alignment that a card makes; the CPU would not mind.
inline void check_alignment(const void* at, unsigned bytes) {
    if (reinterpret_cast<size_t>(at) % bytes) complain("an address is misaligned");
}

// To another thread of the block. (swapcontext would ask the system each time, which takes ten times as long.)
inline void yield(const char* waits_for) {
    Fiber& me = *block->fibers[block->current];
    me.waits = waits_for;
    if (!_setjmp(me.at)) _longjmp(block->main, 1);
}

inline int warp() { return block->current / WARP; }
inline int lane() { return block->current % WARP; }

// Returns which of two memories, in turn, those that meet have written to: none writes there before all have read it.
inline int meet(Meeting& meeting, int count, const char* what) {
    const unsigned now = meeting.generation;
    if (++meeting.count == count) {
        meeting.count = 0;
        ++meeting.generation;
        progress.fetch_add(1, std::memory_order_relaxed);
    } else {
        while (meeting.generation == now) yield(what);
    }
    return now % 2;
}
inline int meet_warp() { return meet(block->warps[warp()], WARP, "its warp"); }
inline int turn_of_warp() { return block->warps[warp()].generation % 2; }
inline void meet_group(int number) { meet(block->groups[number], 4 * WARP, "its warpgroup"); }
inline void meet_all() { meet(block->all, block->count, "all threads"); }

inline unsigned char* dynamic_shared() { return block->shared; }
inline unsigned shared_offset(const void* at) {
    const long offset = static_cast<const unsigned char*>(at) - block->shared;
    if (offset < 0 || static_cast<size_t>(offset) >= block->size) complain("an address is not in shared memory");
    return static_cast<unsigned>(offset);
}

// Runs a grid, so many blocks at once, which may wait for each other.
void run_grid(const unsigned* grid, const unsigned* threads, size_t shared, int at_once,
              const std::function<void()>& function);

// Bytes of a kernel's argument.
template <class... P> size_t size_of_argument(void (*)(P...), size_t number) {
    constexpr size_t sizes[] = {sizeof(P)...};
    return sizes[number];
}

// A kernel's arguments are given as cuLaunchKernel takes them. `kinds`: 'f' for a double, 'i' for whole numbers and
// addresses, '?' for what may be anything.
template <class... P, size_t... I>
void launch(void (*kernel)(P...), std::index_sequence<I...>, const unsigned* grid, const unsigned* threads, size_t shared,
            int at_once, const char* kinds, void* const* arguments) {
    static_assert(((sizeof(P) == 8 || std::is_class_v<P>)&&...), "arguments are 8 bytes long, or structures");
    constexpr char expected[] = {(std::is_floating_point_v<P> ? 'f' : std::is_class_v<P> ? 's' : 'i')..., 0};
    bool same = strlen(kinds) == sizeof...(P);
    for (size_t i = 0; same && i < sizeof...(P); ++i) same = kinds[i] == expected[i] || kinds[i] == '?';
    if (!same) {
        fprintf(stderr, "arguments of the types %s were expected, and %s given\n", expected, kinds);
        abort();
    }
    run_grid(grid, threads, shared, at_once, [=] {
        kernel(*static_cast<std::remove_const_t<P>*>(arguments[I])...);
    });
}
template <class... P, class... Rest> void launch(void (*kernel)(P...), Rest... rest) {
    launch(kernel, std::index_sequence_for<P...>{}, rest...);
}

}  // namespace emulator
