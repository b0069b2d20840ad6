#include "core/copy.h"

#include <cstdint>
#include <cstring>

#include "core/thread_pool.h"

namespace tallow {

void copy_bytes(void* to, const void* from, std::size_t bytes) {
    constexpr std::int64_t grain = 1 << 17;
    parallel_for(static_cast<std::int64_t>(bytes), grain, [&](std::int64_t begin, std::int64_t end) {
        std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin, static_cast<std::size_t>(end - begin));
    });
}

}  // namespace tallow
