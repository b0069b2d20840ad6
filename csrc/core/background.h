// A thread for what need not be done at once: weights are packed there while Python builds the rest of a model.
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <memory>

namespace tallow {

// Work that is done, or will be.
class Task {
public:
    explicit Task(std::function<void()> work) : work_(std::move(work)) {}

    bool done() const { return done_.load(std::memory_order_acquire); }
    void wait() const;  // until it is done; throws what it threw
    void run();

private:
    std::function<void()> work_;
    std::exception_ptr failure_;
    std::atomic<bool> done_{false};
};

// Leave work to the thread, which takes one piece after the other in the order in which they come. What it reads must stay
// until it is done. A process that forks waits for all of it first.
std::shared_ptr<Task> do_later(std::function<void()> work);

}  // namespace tallow
