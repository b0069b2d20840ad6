// A pool of worker threads that share out the tiles of jobs.
//
// Tiles are handed out dynamically, so a slow core takes fewer. No result may depend on which thread computes a tile or
// on how many threads there are. Several callers may have jobs at the same time: each works on its own, and as many
// workers as there are threads besides the callers go, tile after tile, to the job that has the fewest. A job inside a
// job runs on its own thread.
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
    // A caller's job while it lasts. Its fields but `state` and `next` change only while nobody else is inside.
    struct alignas(64) Job {
        // How many workers may be inside, whether more may join (a bit), how many are inside.
        std::atomic<std::uint64_t> state{0};
        std::atomic<bool> taken{false};  // by a caller
        alignas(64) std::atomic<std::int64_t> next{0};
        alignas(64) std::int64_t tiles = 0;
        Body body = nullptr;
        void* context = nullptr;
        std::mutex failing;
        std::exception_ptr failure;

        bool join();
        bool take_tile();  // false if there is none left, and then nobody joins any more
    };
    static constexpr int most_jobs = 8;  // at once; the callers of more do without help
    static constexpr std::int64_t most_workers = 0x7fff;  // of a job

    Job* take_job();
    void resize(int workers);
    void start_workers(int count);
    void stop_workers();
    void post(Job& job, std::int64_t workers);
    void finish();
    void wake(std::int64_t workers);
    void work(int number);
    bool rests(int number, std::uint64_t watched) const;
    std::uint64_t wait_for_change(int number, std::uint64_t seen);
    void sleep_until_change(int number, std::uint64_t seen);
    Job* join_job(const Job* last);

    // What workers watch lies on a cache line of its own: how many jobs have been posted, and how many are not yet done
    // (the low 16 bits).
    alignas(64) std::atomic<std::uint64_t> watched_{0};
    Job jobs_[most_jobs];

    std::atomic<bool> stopping_{false};
    std::atomic<int> sleepers_{0};
    std::atomic<int> threads_;
    std::mutex resizing_;
    std::atomic<int> wanted_workers_{0}, worker_count_{0};  // there are fewer when the system refused some
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
