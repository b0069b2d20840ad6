#include "core/platform.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <thread>

#if defined(__x86_64__) || defined(_M_X64)
#define TALLOW_X86 1
#if defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#include <immintrin.h>
#endif
#endif

#if defined(_WIN32)
#define NOMINMAX
#include <windows.h>
#else
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#endif
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace tallow {

namespace {

#if TALLOW_X86
struct Registers {
    unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
    Registers r;
#if defined(_MSC_VER)
    int out[4];
    __cpuidex(out, static_cast<int>(leaf), static_cast<int>(subleaf));
    r = {unsigned(out[0]), unsigned(out[1]), unsigned(out[2]), unsigned(out[3])};
#else
    __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
#endif
    return r;
}

// The register state that the operating system saves, as a bit mask.
std::uint64_t saved_state() {
    if (!(cpuid(1, 0).c >> 27 & 1)) return 0;
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return std::uint64_t(high) << 32 | low;
#endif
}

// Linux gives a process the AMX tile registers only after it has asked.
bool tiles_permitted() {
#if defined(__linux__) && defined(SYS_arch_prctl)
    constexpr long request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}
#endif

[[maybe_unused]] bool bit(unsigned value, int index) { return value >> index & 1; }

}  // namespace

const char* level_name(Level level) {
    constexpr const char* names[] = {"sse42", "avx2", "avxvnni", "avx512", "avx512vnni", "amx",
                                     "neon",  "dotprod", "i8mm"};
    return names[static_cast<int>(level)];
}

bool level_supported(Level level) {
#if TALLOW_X86
    const Registers one = cpuid(1, 0), seven = cpuid(7, 0), seven1 = cpuid(7, 1);
    const std::uint64_t state = saved_state();
    const bool sse42 = bit(one.c, 20) && bit(one.c, 23);
    const bool avx2 = sse42 && (state & 6) == 6 && bit(seven.b, 5) && bit(one.c, 12) && bit(one.c, 29) && bit(seven.b, 8);
    const bool avx512 = avx2 && (state & 0xe6) == 0xe6 && bit(seven.b, 16) && bit(seven.b, 17) && bit(seven.b, 30) &&
                        bit(seven.b, 31);
    const bool vnni = avx512 && bit(seven.c, 11);
    switch (level) {
        case Level::sse42: return sse42;
        case Level::avx2: return avx2;
        case Level::avxvnni: return avx2 && bit(seven1.a, 4);
        case Level::avx512: return avx512;
        case Level::avx512vnni: return vnni;
        case Level::amx:
            return vnni && (state & 0x60000) == 0x60000 && bit(seven.d, 24) && bit(seven.d, 25) && tiles_permitted();
        default: return false;
    }
#elif defined(__aarch64__) || defined(_M_ARM64)
    bool dotprod = false, i8mm = false;
#if defined(__linux__)
    dotprod = getauxval(AT_HWCAP) >> 20 & 1;
    i8mm = getauxval(AT_HWCAP2) >> 13 & 1;
#elif defined(__APPLE__)
    int value = 0;
    std::size_t size = sizeof(value);
    dotprod = sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, nullptr, 0) == 0 && value;
    i8mm = sysctlbyname("hw.optional.arm.FEAT_I8MM", &value, &size, nullptr, 0) == 0 && value;
#endif
    switch (level) {
        case Level::neon: return true;
        case Level::dotprod: return dotprod;
        case Level::i8mm: return dotprod && i8mm;
        default: return false;
    }
#else
    (void)level;
    return false;
#endif
}

Level best_level() {
    constexpr Level by_preference[] = {Level::amx,  Level::avx512vnni, Level::avx512, Level::avxvnni, Level::avx2,
                                       Level::sse42, Level::i8mm,      Level::dotprod, Level::neon};
    for (Level level : by_preference)
        if (level_supported(level)) return level;
    return Level::sse42;
}

namespace {

#if defined(__linux__)
// Two logical processors of one core share its vector units: a second thread there brings nothing, so cores count.
int cores_in_affinity() {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return 0;
    std::set<std::string> cores;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        char path[96], line[128];
        std::snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
        std::FILE* file = std::fopen(path, "r");
        if (file && std::fgets(line, sizeof(line), file))
            cores.insert(line);
        else
            cores.insert(std::to_string(cpu) + " alone");
        if (file) std::fclose(file);
    }
    return static_cast<int>(cores.size());
}

// Whole processors that the cgroup's quota allows, rounded up; 0 when there is no limit.
int cores_in_quota() {
    long quota = 0, period = 0;
    if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
        const int fields = std::fscanf(file, "%ld %ld", &quota, &period);
        std::fclose(file);
        if (fields == 2 && quota > 0 && period > 0) return static_cast<int>((quota + period - 1) / period);
    }
    auto read = [](const char* path) {
        long value = -1;
        if (std::FILE* file = std::fopen(path, "r")) {
            if (std::fscanf(file, "%ld", &value) != 1) value = -1;
            std::fclose(file);
        }
        return value;
    };
    quota = read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    period = read("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    return quota > 0 && period > 0 ? static_cast<int>((quota + period - 1) / period) : 0;
}
#endif

}  // namespace

int usable_cores() {
    int cores = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
    if (int found = cores_in_affinity()) cores = found;
    if (int allowed = cores_in_quota(); allowed && allowed < cores) cores = allowed;
#elif defined(__APPLE__)
    int fast = 0;
    std::size_t size = sizeof(fast);
    if (sysctlbyname("hw.perflevel0.physicalcpu", &fast, &size, nullptr, 0) == 0 && fast > 0) cores = fast;
#endif
    return cores < 1 ? 1 : cores;
}

void* map_memory(std::size_t bytes, bool large_pages) {
#if defined(_WIN32)
    (void)large_pages;
    return VirtualAlloc(nullptr, bytes, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE);
#else
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
#if defined(MADV_HUGEPAGE)
    if (large_pages && bytes >= (std::size_t(4) << 20)) madvise(memory, bytes, MADV_HUGEPAGE);
#else
    (void)large_pages;
#endif
    return memory;
#endif
}

void* reserve_memory(std::size_t bytes) {
#if defined(_WIN32)
    return map_memory(bytes, false);
#else
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
#if defined(MADV_NOHUGEPAGE)
    madvise(memory, bytes, MADV_NOHUGEPAGE);
#endif
    return memory;
#endif
}

void unmap_memory(void* memory, std::size_t bytes) {
#if defined(_WIN32)
    (void)bytes;
    VirtualFree(memory, 0, MEM_RELEASE);
#else
    munmap(memory, bytes);
#endif
}

void drop_pages(const void* begin, std::size_t bytes) {
#if defined(_WIN32)
    (void)begin, (void)bytes;
#else
    const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto address = reinterpret_cast<std::uintptr_t>(begin), first = address / page * page;
    madvise(reinterpret_cast<void*>(first), bytes + (address - first), MADV_DONTNEED);
#endif
}

void at_fork(void (*before)(), void (*in_parent)(), void (*in_child)()) {
#if defined(_WIN32)
    (void)before, (void)in_parent, (void)in_child;
#else
    pthread_atfork(before, in_parent, in_child);
#endif
}

void relax() {
#if TALLOW_X86
    _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
    __asm__ volatile("yield");
#endif
}

}  // namespace tallow
