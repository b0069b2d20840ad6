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

// A job's state.
constexpr std::uint64_t one_inside = 1, inside_mask = 0xffff, open_bit = std::uint64_t(1) << 16;
constexpr std::uint64_t limit_of(std::uint64_t state) { return state >> 32; }

// What workers watch.
constexpr std::uint64_t one_posted = std::uint64_t(1) << 16, one_active = 1;
constexpr int active_in(std::uint64_t watched) { return static_cast<int>(watched & 0xffff); }

thread_local bool inside_a_tile = false;

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

// Does nothing while another caller is at it.
void ThreadPool::resize(int workers) {
    std::unique_lock lock(resizing_, std::try_to_lock);
    if (!lock || wanted_workers_.load() == workers) return;
    stop_workers();
    start_workers(workers);
}

void ThreadPool::start_workers(int count) {
    stopping_.store(false);
    wanted_workers_.store(count);
    workers_.reserve(static_cast<std::size_t>(count));
    try {
        for (int i = 0; i < count; ++i) workers_.emplace_back([this, i] { work(i + 1); });
    } catch (const std::system_error&) {  // a limit on threads: go on with those that there are
    }
    worker_count_.store(static_cast<int>(workers_.size()));
}

// Jobs that others have posted are then done by their callers.
void ThreadPool::stop_workers() {
    {
        std::lock_guard lock(sleep_);
        stopping_.store(true);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
}

ThreadPool::Job* ThreadPool::take_job() {
    for (Job& job : jobs_)
        if (!job.taken.load(std::memory_order_relaxed) && !job.taken.exchange(true, std::memory_order_acquire)) return &job;
    return nullptr;
}

void ThreadPool::run(std::int64_t tiles, Body body, void* context) {
    const int wanted = threads() - 1;
    const bool alone = tiles <= 1 || wanted < 1 || inside_a_tile;
    if (!alone && wanted_workers_.load(std::memory_order_relaxed) != wanted) resize(wanted);
    Job* const job = alone ? nullptr : take_job();
    if (!job) {
        for (std::int64_t tile = 0; tile < tiles; ++tile) body(context, tile);
        return;
    }
    job->tiles = tiles;
    job->body = body;
    job->context = context;
    job->next.store(0, std::memory_order_relaxed);
    post(*job, std::min<std::int64_t>(tiles - 1, worker_count_.load(std::memory_order_relaxed)));
    while (job->take_tile()) {}
    // No tile is left to hand out: nobody else joins. Wait for those who are still at their last one.
    finish();
    for (int spins = 0; job->state.load(std::memory_order_acquire) & inside_mask; ++spins) {
        if (spins < 10000)
            relax();
        else
            std::this_thread::yield();
    }
    std::exception_ptr failure;
    failure.swap(job->failure);
    job->taken.store(false, std::memory_order_release);
    if (failure) std::rethrow_exception(failure);
}

// Opens the job to so many workers, and wakes as many if some sleep.
void ThreadPool::post(Job& job, std::int64_t workers) {
    const std::uint64_t limit = static_cast<std::uint64_t>(std::min(workers, most_workers));
    job.state.store(limit << 32 | open_bit, std::memory_order_release);
    // Sequentially consistent, as is a sleeper's count before its last look: one of the two sees the other.
    const int others = active_in(watched_.fetch_add(one_posted + one_active, std::memory_order_seq_cst));
    // Beside other callers some workers rest: only each knows whether it does.
    if (others < threads() - 1) wake(others == 0 ? workers : most_workers);
}

// The caller needs no more help: a worker that rested beside it may help others.
void ThreadPool::finish() {
    if (active_in(watched_.fetch_sub(one_active, std::memory_order_seq_cst)) > 1) wake(most_workers);
}

void ThreadPool::wake(std::int64_t workers) {
    const int sleepers = sleepers_.load(std::memory_order_seq_cst);
    if (sleepers == 0) return;
    { std::lock_guard lock(sleep_); }  // a sleeper between its last look and its sleep holds this
    if (workers >= sleepers)
        wake_.notify_all();
    else
        for (std::int64_t i = 0; i < workers; ++i) wake_.notify_one();
}

bool ThreadPool::Job::join() {
    std::uint64_t now = state.load(std::memory_order_relaxed);
    while ((now & open_bit) && (now & inside_mask) < limit_of(now))
        if (state.compare_exchange_weak(now, now + one_inside, std::memory_order_acquire, std::memory_order_relaxed))
            return true;
    return false;
}

bool ThreadPool::Job::take_tile() {
    const std::int64_t tile = next.fetch_add(1, std::memory_order_relaxed);
    if (tile >= tiles) {
        if (state.load(std::memory_order_relaxed) & open_bit) state.fetch_and(~open_bit, std::memory_order_relaxed);
        return false;
    }
    inside_a_tile = true;
    try {
        body(context, tile);
    } catch (...) {
        next.store(tiles, std::memory_order_relaxed);
        std::lock_guard lock(failing);
        if (!failure) failure = std::current_exception();
    }
    inside_a_tile = false;
    return true;
}

// The job with the fewest workers of those that may be joined, which this one has joined then; or none. Of equals, the
// first after the last one that it worked on.
ThreadPool::Job* ThreadPool::join_job(const Job* last) {
    for (;;) {
        Job* best = nullptr;
        std::uint64_t fewest = inside_mask;
        int left = active_in(watched_.load(std::memory_order_acquire));
        const std::ptrdiff_t begin = left > 1 && last ? last - jobs_ + 1 : 0;
        for (std::ptrdiff_t i = 0; i < most_jobs && left > 0; ++i) {
            Job& job = jobs_[(begin + i) % most_jobs];
            const std::uint64_t now = job.state.load(std::memory_order_relaxed);
            if (!(now & open_bit)) continue;
            --left;
            const std::uint64_t inside = now & inside_mask;
            if (inside < limit_of(now) && inside < fewest) best = &job, fewest = inside;
        }
        if (!best || best->join()) return best;
    }
}

// Whether a worker has nothing to do: the callers and the workers before it are as many as the threads.
bool ThreadPool::rests(int number, std::uint64_t watched) const { return number + active_in(watched) > threads(); }

// What is watched, once it is something else than before and the worker does not rest; 0 when the pool is stopping.
std::uint64_t ThreadPool::wait_for_change(int number, std::uint64_t seen) {
    auto begun = std::chrono::steady_clock::now();
    for (int spins = 1; !stopping_.load(std::memory_order_relaxed); ++spins) {
        const std::uint64_t now = watched_.load(std::memory_order_acquire);
        const bool resting = rests(number, now);
        if (now != seen && !resting) return now;
        if (resting)
            std::this_thread::yield();  // callers may need its core
        else
            relax();
        if (spins % 64) continue;
        const auto waited = std::chrono::steady_clock::now() - begun;
        if (waited > spin_time) {
            sleep_until_change(number, seen);
            begun = std::chrono::steady_clock::now();
        } else if (waited > alone_time && spins % 512 == 0) {
            std::this_thread::yield();
        }
    }
    return 0;
}

void ThreadPool::sleep_until_change(int number, std::uint64_t seen) {
    std::unique_lock lock(sleep_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(lock, [&] {
        const std::uint64_t now = watched_.load(std::memory_order_seq_cst);
        return stopping_.load(std::memory_order_relaxed) || (now != seen && !rests(number, now));
    });
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

// number: of the worker, from 1.
void ThreadPool::work(int number) {
    std::uint64_t seen = 0;
    Job* job = nullptr;
    while ((seen = wait_for_change(number, seen))) {
        while (!stopping_.load(std::memory_order_relaxed) && !rests(number, seen)) {
            job = join_job(job);
            if (!job) break;
            // Among several jobs it looks anew after each tile, and when it is to stop it leaves the rest to the callers.
            const auto stays = [&] {
                return active_in(watched_.load(std::memory_order_relaxed)) == 1 && !stopping_.load(std::memory_order_relaxed);
            };
            while (job->take_tile() && stays()) {}
            job->state.fetch_sub(one_inside, std::memory_order_release);
            seen = watched_.load(std::memory_order_acquire);
        }
    }
}

}  // namespace tallow
