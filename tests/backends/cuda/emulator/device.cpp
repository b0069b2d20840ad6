// What starts the blocks and threads of device.h, compiled once for all kernels.
#include <map>

#include "instructions.h"

namespace emulator {

constinit thread_local Block* block = nullptr;
constinit thread_local Index thread_index, block_index;
Index grid_size, block_size;
std::atomic<long> progress{0};
static std::atomic<bool> stuck{false};
static const std::function<void()>* kernel;

static void live() {  // a fiber, for as long as its thread of the system
    for (;;) {
        Fiber& me = *block->fibers[block->current];
        (*kernel)();
        if (me.copies.size() > 1 || !me.copies.back().empty()) me.copies.assign(1, {});
        if (me.products.size() > 1 || !me.products.back().empty()) complain("a thread ends before its products do");
        me.done = true, me.met = 0;
        progress.fetch_add(1, std::memory_order_relaxed);
        if (!_setjmp(me.at)) _longjmp(block->main, 1);
    }
}

static void resume(Block& b, int i) {
    Fiber& fiber = *b.fibers[i];
    b.current = i;
    thread_index = {i % block_size.x, i / block_size.x % block_size.y, i / block_size.x / block_size.y};
    if (_setjmp(b.main)) return;
    if (fiber.begun) _longjmp(fiber.at, 1);
    fiber.begun = true;
    setcontext(&fiber.first);
}

static void prepare(Block& b) {
    block = &b;
    b.count = static_cast<int>(block_size.x * block_size.y * block_size.z);
    if (b.count > MOST_THREADS || b.count % WARP) complain("a block is no whole number of warps");
    while (static_cast<int>(b.fibers.size()) < b.count) {
        Fiber& fiber = *b.fibers.emplace_back(new Fiber);
        getcontext(&fiber.first);
        fiber.first.uc_stack.ss_sp = fiber.stack.get();
        fiber.first.uc_stack.ss_size = STACK;
        fiber.first.uc_link = nullptr;
        makecontext(&fiber.first, live, 0);
    }
}

static void tell_who_waits() {
    std::map<std::string, int> waiting;
    for (int i = 0; i < block->count; ++i)
        if (!block->fibers[i]->done) ++waiting[block->fibers[i]->waits];
    for (const auto& [what, count] : waiting)
        fprintf(stderr, "block %d: %d threads wait for %s\n", block->index, count, what.c_str());
}

// Runs a block on this thread of the system.
static void run_block(int index, size_t size, Cluster& cluster) {
    constexpr int PATIENCE = 200000;  // turns without any progress in the whole grid
    thread_local Block b;
    prepare(b);
    b.index = index, b.size = size, b.cluster = &cluster;
    b.all = {};
    for (Meeting& group : b.groups) group = {};
    for (Meeting& warp : b.warps) warp = {};
    const unsigned x = grid_size.x, y = grid_size.y, at = static_cast<unsigned>(index);
    block_index = {at % x, at / x % y, at / x / y};
    std::vector<unsigned char> memory(size + 1024, 0xff);  // NaN
    b.shared = memory.data() + (1024 - reinterpret_cast<size_t>(memory.data()) % 1024) % 1024;
    for (int i = 0; i < b.count; ++i) b.fibers[i]->done = false;
    std::atomic<Block*>& seen = cluster.blocks[index % cluster.blocks.size()];
    seen = &b;
    long last = -1;
    int idle = 0;
    for (bool alive = true; alive;) {
        alive = false;
        for (int i = 0; i < b.count; ++i) {
            if (b.fibers[i]->done) continue;
            alive = true;
            resume(b, i);
        }
        if (const long now = progress; now != last) {
            last = now, idle = 0;
        } else if (++idle > PATIENCE || stuck) {
            stuck = true;
            return tell_who_waits();
        } else {
            std::this_thread::yield();
        }
    }
    seen = nullptr;
}

void run_grid(const unsigned* grid, const unsigned* threads, size_t shared, int at_once,
              const std::function<void()>& function) {
    grid_size = {grid[0], grid[1], grid[2]}, block_size = {threads[0], threads[1], threads[2]};
    kernel = &function;
    stuck = false, progress = 0;
    const int blocks = static_cast<int>(grid[0] * grid[1] * grid[2]);
    if (blocks % at_once) complain("a grid is no whole number of clusters");
    for (int first = 0; first < blocks && !stuck; first += at_once) {
        Cluster cluster(at_once);
        std::vector<std::thread> running;
        for (int i = first + 1; i < first + at_once; ++i) running.emplace_back([&, i] { run_block(i, shared, cluster); });
        run_block(first, shared, cluster);
        for (auto& thread : running) thread.join();
    }
    if (stuck) abort();
}

}  // namespace emulator
