#include "ops/arithmetic.h"

#include "core/thread_pool.h"

namespace tallow {

void add(const AddArgs& args) {
    constexpr std::int64_t worth_sharing = 1 << 16;
    parallel_for(args.n, worth_sharing, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) args.out[i] = args.x[i] + args.y[i];
    });
}

}  // namespace tallow
