#include "ops/norm.h"

#include "core/kernels.h"
#include "core/thread_pool.h"

namespace tallow {

namespace {

// Rows a thread takes at once: below some 16 thousand numbers, sharing out costs more than it saves.
std::int64_t grain(const NormArgs& args) { return 16384 / (args.width + 1) + 1; }

}  // namespace

void layer_norm(const NormArgs& args) {
    parallel_for(args.rows, grain(args), [&](std::int64_t begin, std::int64_t end) { kernels().layer_norm(args, begin, end); });
}

void rms_norm(const NormArgs& args) {
    parallel_for(args.rows, grain(args), [&](std::int64_t begin, std::int64_t end) { kernels().rms_norm(args, begin, end); });
}

}  // namespace tallow
