#include "ops/measure.h"

#include <atomic>
#include <chrono>
#include <cstring>

#include "core/buffers.h"
#include "core/kernels.h"
#include "core/thread_pool.h"

namespace tallow {

namespace {

using Clock = std::chrono::steady_clock;

std::atomic<float> sink;  // where results go, so that nothing is left out as useless

// Calls pass() until the time is over; how often it was called in a second.
template <typename Pass>
double rate(double seconds, Pass&& pass) {
    pass();
    const auto begun = Clock::now();
    for (std::int64_t passes = 1;; ++passes) {
        pass();
        const double elapsed = std::chrono::duration<double>(Clock::now() - begun).count();
        if (elapsed >= seconds) return static_cast<double>(passes) / elapsed;
    }
}

}  // namespace

double measure_multiply_add(double seconds) {
    constexpr std::int64_t steps = 1 << 14;
    const std::int64_t tiles = 16 * ThreadPool::instance().threads();
    const double passes = rate(seconds, [&] {
        parallel_for(tiles, 1, [&](std::int64_t, std::int64_t) {
            sink.store(kernels().multiply_add_loop(steps), std::memory_order_relaxed);
        });
    });
    return passes * static_cast<double>(tiles * steps * kernels().multiply_adds_in_step * 2);
}

double measure_read(std::int64_t bytes, double seconds) {
    const std::int64_t n = bytes / 4, piece = 1 << 16, pieces = (n + piece - 1) / piece;
    float* data = static_cast<float*>(take_buffer(static_cast<std::size_t>(n) * 4));
    std::memset(data, 0, static_cast<std::size_t>(n) * 4);  // pages of its own, not the one page of zeros
    const double passes = rate(seconds, [&] {
        parallel_for(pieces, 1, [&](std::int64_t index, std::int64_t) {
            const std::int64_t begin = index * piece, count = n - begin < piece ? n - begin : piece;
            sink.store(kernels().read_loop(data + begin, count), std::memory_order_relaxed);
        });
    });
    give_buffer(data, static_cast<std::size_t>(n) * 4);
    return passes * static_cast<double>(n) * 4;
}

}  // namespace tallow
