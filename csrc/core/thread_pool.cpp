#include "core/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <system_error>

#include "core/platform.h"

namespace tallow {

namespace {

// A decoding step leaves gaps of microseconds between jobs: a worker that slept through each would wake too late. After
// a while it lets other threads have its core now and then, among them perhaps the very caller.
constexpr auto spin_time = std::chrono::microseconds(300), alone_time = std::chrono::microseconds(50);

// The job word: the job's number (never 0 for a posted one, low 32 bits of a count), places left, workers inside.
constexpr std::uint64_t one_inside = 1, one_place = std::uint64_t(1) << 16, places_mask = std::uint64_t(0xffff) << 16;
constexpr std::uint64_t inside_mask = 0xffff;
constexpr std::uint32_t number_of(std::uint64_t job) { return static_cast<std::uint32_t>(job >> 32); }

std::atomic<ThreadPool*> the_pool{nullptr};
std::mutex creating;
int inherited_threads = 0;  // in a forked child: its parent's setting

int initial_threads() {
    if (inherited_threads) return inherited_threads;
    if (const char* text = std::getenv("TALLOW_NUM_THREADS")) {
        const int count = std::atoi(text);
        if (count > 0) return count;
    }
    return usable_cores();
}

// A forked child has only the thread that forked: it leaves the parent's pool behind and makes its own.
[[maybe_unused]] const bool survives_forks = [] {
    at_fork([] { creating.lock(); }, [] { creating.unlock(); }, [] {
        if (ThreadPool* pool = the_pool.load(std::memory_order_relaxed)) inherited_threads = pool->threads();
        the_pool.store(nullptr, std::memory_order_relaxed);
        creating.unlock();
    });
    return true;
}();

}  // namespace

ThreadPool& ThreadPool::instance() {
    ThreadPool* pool = the_pool.load(std::memory_order_acquire);
    if (pool) return *pool;
    std::lock_guard lock(creating);
    pool = the_pool.load(std::memory_order_acquire);
    if (!pool) {
        pool = new ThreadPool(initial_threads());  // never destroyed: workers may wait in it while the process ends
        the_pool.store(pool, std::memory_order_release);
    }
    return *pool;
}

ThreadPool::ThreadPool(int threads) : threads_(std::max(threads, 1)) {}

ThreadPool::~ThreadPool() { stop_workers(); }

void ThreadPool::set_threads(int count) { threads_.store(std::max(count, 1), std::memory_order_relaxed); }

void ThreadPool::start_workers(int count) {
    stop_workers();
    stopping_.store(false);
    wanted_workers_ = count;
    workers_.reserve(static_cast<std::size_t>(count));
    try {
        for (int i = 0; i < count; ++i) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {  // a limit on threads: go on with those that there are
    }
}

void ThreadPool::stop_workers() {
    {
        std::lock_guard lock(sleep_);
        stopping_.store(true);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
}

void ThreadPool::run(std::int64_t tiles, Body body, void* context) {
    const int wanted = threads() - 1;
    if (tiles <= 1 || wanted < 1 || busy_.exchange(true, std::memory_order_acquire)) {
        for (std::int64_t tile = 0; tile < tiles; ++tile) body(context, tile);
        return;
    }
    if (wanted_workers_ != wanted) start_workers(wanted);
    tiles_ = tiles;
    body_ = body;
    context_ = context;
    next_.store(0, std::memory_order_relaxed);
    post(std::min<std::int64_t>(tiles - 1, static_cast<std::int64_t>(workers_.size())));
    take_tiles();
    // No tile is left to hand out: nobody else may join. Wait for those who are still at their last one.
    job_.fetch_and(~places_mask, std::memory_order_relaxed);
    for (int spins = 0; job_.load(std::memory_order_acquire) & inside_mask; ++spins) {
        if (spins < 10000)
            relax();
        else
            std::this_thread::yield();
    }
    std::exception_ptr failure;
    failure.swap(failure_);
    busy_.store(false, std::memory_order_release);
    if (failure) std::rethrow_exception(failure);
}

// Opens the job to so many workers, and wakes as many if some sleep.
void ThreadPool::post(std::int64_t workers) {
    const std::uint64_t places = static_cast<std::uint64_t>(std::min<std::int64_t>(workers, 0xffff));
    std::uint32_t number = number_of(job_.load(std::memory_order_relaxed)) + 1;
    if (number == 0) number = 1;
    // Sequentially consistent, as is a sleeper's count before its last look: one of the two sees the other.
    job_.store(std::uint64_t(number) << 32 | places << 16, std::memory_order_seq_cst);
    const int sleepers = sleepers_.load(std::memory_order_seq_cst);
    if (sleepers == 0) return;
    { std::lock_guard lock(sleep_); }  // a sleeper between its last look and its sleep holds this
    if (workers >= sleepers)
        wake_.notify_all();
    else
        for (std::int64_t i = 0; i < workers; ++i) wake_.notify_one();
}

void ThreadPool::take_tiles() {
    try {
        for (;;) {
            const std::int64_t tile = next_.fetch_add(1, std::memory_order_relaxed);
            if (tile >= tiles_) return;
            body_(context_, tile);
        }
    } catch (...) {
        next_.store(tiles_, std::memory_order_relaxed);
        std::lock_guard lock(failing_);
        if (!failure_) failure_ = std::current_exception();
    }
}

bool ThreadPool::join_job(std::uint64_t state) {
    const std::uint32_t number = number_of(state);
    while ((state & places_mask) && number_of(state) == number)
        if (job_.compare_exchange_weak(state, state - one_place + one_inside, std::memory_order_acquire,
                                       std::memory_order_relaxed))
            return true;
    return false;
}

// The state of the next job with a number other than `last` that has a place left; 0 when the pool is stopping.
std::uint64_t ThreadPool::wait_for_job(std::uint32_t last) {
    std::uint32_t latest = last;  // including jobs that were over before this worker could join
    auto begun = std::chrono::steady_clock::now();
    for (int spins = 1; !stopping_.load(std::memory_order_relaxed); ++spins) {
        const std::uint64_t state = job_.load(std::memory_order_relaxed);
        if ((state & places_mask) && number_of(state) != last) return state;
        relax();
        if (spins % 64) continue;
        const auto now = std::chrono::steady_clock::now();
        if (number_of(state) != latest) {
            latest = number_of(state);
            begun = now;
        } else if (now - begun > spin_time) {
            sleep_until_job(latest);
            begun = std::chrono::steady_clock::now();
        } else if (now - begun > alone_time && spins % 512 == 0) {
            std::this_thread::yield();
        }
    }
    return 0;
}

// Sleeps until a job with another number is posted, which may be over by then.
void ThreadPool::sleep_until_job(std::uint32_t latest) {
    std::unique_lock lock(sleep_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(lock, [&] {
        return stopping_.load(std::memory_order_relaxed) || number_of(job_.load(std::memory_order_seq_cst)) != latest;
    });
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

void ThreadPool::work() {
    std::uint32_t last = 0;
    while (const std::uint64_t state = wait_for_job(last)) {
        last = number_of(state);
        if (!join_job(state)) continue;
        take_tiles();
        job_.fetch_sub(one_inside, std::memory_order_release);
    }
}

}  // namespace tallow
