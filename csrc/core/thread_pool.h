// A pool of worker threads that share out the tiles of one job at a time.
//
// Tiles are handed out dynamically, so a slow core takes fewer. No result may depend on which thread computes a tile or
// on how many threads there are. A second caller, or a job inside a job, runs its tiles on its own thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace tallow {

class ThreadPool {
public:
    using Body = void (*)(void* context, std::int64_t tile);

    static ThreadPool& instance();

    explicit ThreadPool(int threads);
    ThreadPool(const ThreadPool&) = delete;
    ~ThreadPool();

    int threads() const { return threads_.load(std::memory_order_relaxed); }
    void set_threads(int count);  // at least 1; takes effect with the next job

    // Returns when all tiles are done. If a body throws, tiles that are not begun are left out, and the first exception
    // is thrown here.
    void run(std::int64_t tiles, Body body, void* context);

private:
    void start_workers(int count);
    void stop_workers();
    void post(std::int64_t workers);
    void work();
    std::uint64_t wait_for_job(std::uint32_t last);
    void sleep_until_job(std::uint32_t latest);
    bool join_job(std::uint64_t state);
    void take_tiles();

    // What workers watch lies on a cache line of its own: the number of the job, how many more workers may join it, and
    // how many are inside.
    alignas(64) std::atomic<std::uint64_t> job_{0};
    alignas(64) std::atomic<std::int64_t> next_{0};
    alignas(64) std::int64_t tiles_ = 0;
    Body body_ = nullptr;
    void* context_ = nullptr;
    std::mutex failing_;
    std::exception_ptr failure_;

    std::atomic<bool> busy_{false};
    std::atomic<bool> stopping_{false};
    std::atomic<int> sleepers_{0};
    std::atomic<int> threads_;
    int wanted_workers_ = 0;  // workers_ holds fewer when the system refused some
    std::mutex sleep_;
    std::condition_variable wake_;
    std::vector<std::thread> workers_;
};

// Calls f(begin, end) for stretches of at most `grain` that cover [0, count).
template <typename F>
void parallel_for(std::int64_t count, std::int64_t grain, F&& f) {
    if (count <= 0) return;
    if (grain < 1) grain = 1;
    if (count <= grain) {
        f(std::int64_t(0), count);
        return;
    }
    struct Context {
        F& f;
        std::int64_t count, grain;
    } context{f, count, grain};
    ThreadPool::instance().run(
        (count - 1) / grain + 1,
        [](void* raw, std::int64_t tile) {
            auto& c = *static_cast<Context*>(raw);
            const std::int64_t begin = tile * c.grain;
            const std::int64_t end = c.count - begin > c.grain ? begin + c.grain : c.count;
            c.f(begin, end);
        },
        &context);
}

}  // namespace tallow
