#include "core/kernels.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace tallow {

namespace {

Level chosen_level() {
    const char* forced = std::getenv("TALLOW_CPU");
    if (!forced || !*forced) {
        const Level best = best_level();
        if (!level_supported(best)) throw std::runtime_error("this processor lacks SSE4.2 (x86-64-v2), the least Tallow needs");
        return best;
    }
    std::string supported;
    for (int i = 0; i < level_count; ++i) {
        const Level level = static_cast<Level>(i);
        if (!level_supported(level)) continue;
        if (forced == std::string(level_name(level))) return level;
        supported += std::string(supported.empty() ? "" : ", ") + level_name(level);
    }
    throw std::runtime_error("TALLOW_CPU=" + std::string(forced) + ": this processor has " + supported);
}

// Fills a table from the vector unit's level `base`, the multiplication of bytes that `bytes` has, and that of groups of
// bytes, GGUF's blocks among them, that `groups` has.
#define TALLOW_FILL(base, bytes, groups) \
    base::add_kernels(table);            \
    bytes::add_int8_kernels(table);      \
    groups::add_grouped_kernels(table);  \
    groups::add_block_kernels(table);    \
    break

Kernels make_table(Level level) {
    Kernels table{};
    switch (level) {
#if defined(__aarch64__) || defined(_M_ARM64)
        case Level::dotprod: TALLOW_FILL(neon, dotprod, dotprod);
        case Level::i8mm: TALLOW_FILL(neon, i8mm, dotprod);
        default: TALLOW_FILL(neon, neon, neon);
#else
        case Level::avx2: TALLOW_FILL(avx2, avx2, avx2);
        case Level::avxvnni: TALLOW_FILL(avx2, avxvnni, avxvnni);
        case Level::avx512: TALLOW_FILL(avx512, avx512, avx512);
        case Level::avx512vnni: TALLOW_FILL(avx512, avx512vnni, avx512vnni);
        case Level::amx: TALLOW_FILL(avx512, amx, avx512vnni);
        default: TALLOW_FILL(sse42, sse42, sse42);
#endif
    }
    return table;
}

#undef TALLOW_FILL

std::atomic<int> the_level{-1};

}  // namespace

Level active_level() {
    int level = the_level.load(std::memory_order_acquire);
    if (level < 0) {
        static const Level chosen = chosen_level();
        level = static_cast<int>(chosen);
        int unset = -1;
        if (!the_level.compare_exchange_strong(unset, level, std::memory_order_acq_rel)) level = unset;
    }
    return static_cast<Level>(level);
}

void set_level(Level level) {
    if (!level_supported(level)) throw std::runtime_error(std::string("this processor lacks ") + level_name(level));
    the_level.store(static_cast<int>(level), std::memory_order_release);
}

const Kernels& kernels_for(Level level) {
    static const std::array<Kernels, level_count> tables = [] {
        std::array<Kernels, level_count> made{};
        for (int i = 0; i < level_count; ++i) {
            const Level level = static_cast<Level>(i);
            if (level_supported(level)) made[i] = make_table(level);  // even to name its kernels takes its instructions
        }
        return made;
    }();
    return tables[static_cast<int>(level)];
}

const Kernels& kernels() { return kernels_for(active_level()); }

}  // namespace tallow
