// Work left to the background thread, and the memory of weights.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"
#include "core/background.h"
#include "core/slabs.h"

#if !defined(_WIN32) && !defined(__SANITIZE_THREAD__)  // ThreadSanitizer forbids threads after a fork
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace tallow;

TEST(tasks_are_done_in_their_order) {
    std::vector<int> done;
    std::shared_ptr<Task> last;
    for (int i = 0; i < 1000; ++i) last = do_later([&done, i] { done.push_back(i); });
    last->wait();
    CHECK(done.size() == 1000);
    for (int i = 0; i < 1000; ++i) CHECK(done[i] == i);
}

TEST(a_task_that_fails_fails_where_it_is_waited_for) {
    const auto failing = do_later([] { throw std::invalid_argument("no"); });
    const auto next = do_later([] {});
    next->wait();
    CHECK(failing->done());
    bool thrown = false;
    try {
        failing->wait();
    } catch (const std::invalid_argument&) {
        thrown = true;
    }
    CHECK(thrown);
}

#if !defined(_WIN32) && !defined(__SANITIZE_THREAD__)  // ThreadSanitizer forbids threads after a fork
TEST(a_fork_waits_for_what_was_left_to_do) {
    std::atomic<int> done{0};
    for (int i = 0; i < 5; ++i)
        do_later([&done] {
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
            ++done;
        });
    const pid_t child = fork();
    if (child == 0) {
        const bool all = done == 5;
        do_later([&done] { ++done; })->wait();
        _exit(all && done == 6 ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(done == 5);
}
#endif

TEST(lasting_memory_is_apart_zero_and_aligned) {
    std::vector<std::pair<std::shared_ptr<void>, std::size_t>> taken;
    for (std::size_t bytes : {0u, 1u, 64u, 100u, 5u << 20, 7u << 20, 9u << 20, 6u << 20, 40u << 20}) {
        taken.emplace_back(take_lasting(bytes), bytes);
        auto* data = static_cast<unsigned char*>(taken.back().first.get());
        CHECK(reinterpret_cast<std::uintptr_t>(data) % 64 == 0);
        for (std::size_t i = 0; i < bytes; i += 4096) CHECK(data[i] == 0);
        std::memset(data, static_cast<int>(taken.size()), bytes);
    }
    taken.erase(taken.begin() + 4);
    for (const auto& [memory, bytes] : taken) {
        const auto* data = static_cast<const unsigned char*>(memory.get());
        for (std::size_t i = 1; i < bytes; i += 1000) CHECK(data[i] == data[0]);
    }
}
