#include "core/background.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "core/platform.h"

namespace tallow {

namespace {

struct Queue {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::shared_ptr<Task>> tasks;  // the first is the one at work
    bool has_thread = false;

    void add(std::shared_ptr<Task> task) {
        std::unique_lock lock(mutex);
        if (!has_thread) {
            try {
                std::thread([this] { work(); }).detach();
                has_thread = true;
            } catch (const std::system_error&) {  // a limit on threads
                lock.unlock();
                return task->run();
            }
        }
        tasks.push_back(std::move(task));
        changed.notify_all();
    }

    void work() {
        std::unique_lock lock(mutex);
        for (;;) {
            changed.wait(lock, [this] { return !tasks.empty(); });
            const std::shared_ptr<Task> task = tasks.front();
            lock.unlock();
            task->run();
            lock.lock();
            tasks.pop_front();
            if (tasks.empty()) changed.notify_all();
        }
    }

    void lock_when_idle() {
        std::unique_lock lock(mutex);
        changed.wait(lock, [this] { return tasks.empty(); });
        lock.release();
    }
};

// Never destroyed: the thread may sleep in it while the process ends. A forked child starts a thread of its own. What is
// last to register is first to prepare for a fork: this waits for tasks before others hold the locks that those need.
Queue& queue() {
    static Queue* const made = [] {
        at_fork([] { queue().lock_when_idle(); }, [] { queue().mutex.unlock(); },
                [] {
                    queue().has_thread = false;
                    queue().mutex.unlock();
                });
        return new Queue();
    }();
    return *made;
}

}  // namespace

void Task::run() {
    try {
        work_();
    } catch (...) {
        failure_ = std::current_exception();
    }
    done_.store(true, std::memory_order_release);
    done_.notify_all();
}

void Task::wait() const {
    done_.wait(false, std::memory_order_acquire);
    if (failure_) std::rethrow_exception(failure_);
}

std::shared_ptr<Task> do_later(std::function<void()> work) {
    auto task = std::make_shared<Task>(std::move(work));
    queue().add(task);
    return task;
}

}  // namespace tallow
