#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "check.h"
#include "core/buffers.h"
#include "core/thread_pool.h"

using tallow::parallel_for;
using tallow::ThreadPool;

namespace {

// Runs a job that counts how often each tile is computed; true if that is once.
bool all_once(ThreadPool& pool, std::int64_t tiles) {
    std::vector<std::atomic<int>> seen(static_cast<std::size_t>(tiles));
    pool.run(tiles, [](void* context, std::int64_t tile) {
        (*static_cast<std::vector<std::atomic<int>>*>(context))[static_cast<std::size_t>(tile)].fetch_add(1);
    }, &seen);
    for (auto& count : seen)
        if (count.load() != 1) return false;
    return true;
}

void pause(int microseconds) { std::this_thread::sleep_for(std::chrono::microseconds(microseconds)); }

}  // namespace

TEST(every_tile_is_computed_once) {
    for (int threads : {1, 2, 3, 8}) {
        ThreadPool pool(threads);
        for (std::int64_t tiles : {0, 1, 2, 3, 7, 100, 5000}) CHECK(all_once(pool, tiles));
    }
}

TEST(results_are_visible_to_the_caller) {
    ThreadPool pool(4);
    std::vector<std::int64_t> plain(64);
    for (int round = 0; round < 2000; ++round) {
        pool.run(64, [](void* context, std::int64_t tile) { static_cast<std::int64_t*>(context)[tile] += tile; }, plain.data());
    }
    for (std::int64_t i = 0; i < 64; ++i) CHECK(plain[static_cast<std::size_t>(i)] == 2000 * i);
}

TEST(workers_sleep_and_wake) {
    ThreadPool pool(4);
    for (int gap : {0, 20, 90, 100, 110, 400, 3000})  // about and beyond the time that a worker spins
        for (int round = 0; round < (gap > 1000 ? 5 : 60); ++round) {
            CHECK(all_once(pool, 1 + round % 9));
            if (gap) pause(gap);
        }
}

TEST(the_number_of_threads_changes_between_jobs) {
    ThreadPool pool(1);
    for (int round = 0; round < 100; ++round) {
        pool.set_threads(round % 5);  // 0 counts as 1
        CHECK(pool.threads() == (round % 5 ? round % 5 : 1));
        CHECK(all_once(pool, 20));
    }
}

TEST(many_callers_and_one_who_sets_threads) {
    ThreadPool pool(3);
    std::atomic<bool> done{false};
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (int c = 0; c < 3; ++c)
        callers.emplace_back([&] {
            for (int round = 0; round < 300; ++round)
                if (!all_once(pool, round % 40)) ++wrong;
        });
    std::thread setter([&] {
        for (int count = 1; !done.load(); count = count % 4 + 1) {
            pool.set_threads(count);
            pause(200);
        }
    });
    for (auto& caller : callers) caller.join();
    done = true;
    setter.join();
    CHECK(wrong == 0);
}

// Two jobs at once on a pool with one worker to spare. Each ends when its worker has come: until then its caller waits in a
// tile, and a worker finds tiles without end in either.
TEST(two_callers_are_both_helped) {
    struct Half {
        std::thread::id caller;
        std::atomic<bool> begun{false}, helped{false};
        Half* other = nullptr;
    };
    struct Done {};
    const auto tile = [](void* context, std::int64_t) {
        Half& half = *static_cast<Half*>(context);
        half.begun = true;
        if (std::this_thread::get_id() != half.caller) {
            if (half.other->begun) half.helped = true;
            return pause(100);
        }
        const auto begun = std::chrono::steady_clock::now();  // against waiting for ever
        while (!half.helped && std::chrono::steady_clock::now() - begun < std::chrono::seconds(20)) pause(100);
        while (!half.other->helped && std::chrono::steady_clock::now() - begun < std::chrono::seconds(20)) pause(100);
        throw Done();
    };
    for (int threads : {3, 4, 6}) {
        ThreadPool pool(threads);
        CHECK(all_once(pool, 100));
        Half halves[2];
        halves[0].other = &halves[1], halves[1].other = &halves[0];
        std::vector<std::thread> callers;
        for (Half& half : halves)
            callers.emplace_back([&] {
                half.caller = std::this_thread::get_id();
                try {
                    pool.run(std::int64_t(1) << 40, tile, &half);
                } catch (const Done&) {
                }
            });
        for (auto& caller : callers) caller.join();
        CHECK(halves[0].helped && halves[1].helped);
        CHECK(all_once(pool, 100));
    }
}

// Without end, until its caller throws in a tile. Tiles of a worker count as help.
struct EndlessJob {
    struct Done {};
    std::thread::id caller;
    std::atomic<bool> begun{false}, helped{false}, ended{false};
    std::function<bool()> until;  // what the caller waits for, but not for ever

    void run(ThreadPool& pool) {
        caller = std::this_thread::get_id();
        try {
            pool.run(std::int64_t(1) << 40, tile, this);
        } catch (const Done&) {
        }
        ended = true;
    }

    static void tile(void* context, std::int64_t) {
        EndlessJob& job = *static_cast<EndlessJob*>(context);
        job.begun = true;
        if (std::this_thread::get_id() != job.caller) {
            job.helped = true;
            return pause(100);
        }
        const auto begun = std::chrono::steady_clock::now();
        while (!job.until() && std::chrono::steady_clock::now() - begun < std::chrono::seconds(20)) pause(100);
        throw Done();
    }
};

TEST(a_worker_that_rested_beside_two_callers_helps_the_one_that_is_left) {
    ThreadPool pool(2);
    CHECK(all_once(pool, 100));
    EndlessJob first, second;
    std::atomic<bool> rested{false};
    first.until = [&] { return rested.load(); };
    second.until = [&] { return first.ended && second.helped; };
    std::thread one([&] { first.run(pool); }), other([&] { second.run(pool); });
    while (!first.begun || !second.begun) pause(100);
    pause(5000);  // the worker sleeps by now
    second.helped = false;
    rested = true;
    one.join(), other.join();
    CHECK(second.helped);
}

TEST(who_changes_the_number_of_threads_does_not_wait_for_jobs_of_others) {
    ThreadPool pool(2);
    CHECK(all_once(pool, 100));
    EndlessJob job;
    std::atomic<bool> changed{false};
    job.until = [&] { return changed.load(); };
    std::thread other([&] { job.run(pool); });
    while (!job.helped) pause(100);
    pool.set_threads(3);
    CHECK(all_once(pool, 100));
    CHECK(!job.ended);
    changed = true;
    other.join();
}

TEST(more_callers_than_jobs_that_are_shared) {
    ThreadPool pool(4);
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (int c = 0; c < 20; ++c)
        callers.emplace_back([&] {
            for (int round = 0; round < 50; ++round)
                if (!all_once(pool, 1 + round % 30)) ++wrong;
        });
    for (auto& caller : callers) caller.join();
    CHECK(wrong == 0);
}

TEST(a_job_inside_a_job_runs_on_its_own_thread) {
    std::atomic<std::int64_t> total{0};
    parallel_for(50, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const auto self = std::this_thread::get_id();
            parallel_for(30, 1, [&](std::int64_t from, std::int64_t to) {
                CHECK(std::this_thread::get_id() == self);
                total += to - from;
            });
        }
    });
    CHECK(total == 1500);
}

TEST(an_exception_reaches_the_caller_and_the_pool_goes_on) {
    ThreadPool pool(4);
    for (int round = 0; round < 50; ++round) {
        bool caught = false;
        try {
            pool.run(100, [](void*, std::int64_t tile) {
                if (tile % 3 == 1) throw std::runtime_error("tile");
            }, nullptr);
        } catch (const std::runtime_error&) {
            caught = true;
        }
        CHECK(caught);
        CHECK(all_once(pool, 64));
    }
}

TEST(stretches_cover_a_range) {
    for (std::int64_t count : {0, 1, 5, 64, 1000})
        for (std::int64_t grain : {0, 1, 3, 64, 5000}) {
            std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
            parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
                CHECK(end - begin <= (grain < 1 ? 1 : grain));
                for (std::int64_t i = begin; i < end; ++i) seen[static_cast<std::size_t>(i)]++;
            });
            for (auto& s : seen) CHECK(s == 1);
        }
}

#if !defined(_WIN32) && !defined(__SANITIZE_THREAD__)  // ThreadSanitizer forbids threads after a fork
// Whether QEMU runs this program: its emulation of a process with several threads does not survive a fork.
static bool emulated() {
    char name[64] = {};
    if (std::FILE* file = std::fopen("/proc/self/status", "r")) {
        if (!std::fgets(name, sizeof(name), file)) name[0] = 0;
        std::fclose(file);
    }
    return std::strstr(name, "qemu") != nullptr;
}

TEST(a_forked_child_has_a_pool_of_its_own) {
    if (emulated()) return;
    ThreadPool::instance().set_threads(3);
    CHECK(all_once(ThreadPool::instance(), 100));
    std::atomic<bool> done{false};
    std::thread busy([&] {  // the fork comes while another thread runs jobs and borrows memory
        while (!done.load()) {
            all_once(ThreadPool::instance(), 100);
            tallow::give_buffer(tallow::take_buffer(100000), 100000);
        }
    });
    for (int round = 0; round < 10; ++round) {
        const pid_t child = fork();
        if (child == 0) {
            const bool fine = ThreadPool::instance().threads() == 3 && all_once(ThreadPool::instance(), 500);
            tallow::give_buffer(tallow::take_buffer(100000), 100000);
            _exit(fine ? 0 : 1);
        }
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    done = true;
    busy.join();
    CHECK(all_once(ThreadPool::instance(), 100));
}
#endif
