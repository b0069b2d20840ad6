// Runs every native test, or those whose names contain the first argument.
#include <cstring>

#include "check.h"
#include "core/kernels.h"

int main(int argc, char** argv) {
    int count = 0;
    for (auto* test = tallow::testing::Test::first(); test; test = test->next) {
        if (argc > 1 && !std::strstr(test->name, argv[1])) continue;
        for (int i = 0; i < tallow::level_count; ++i) {
            const auto level = static_cast<tallow::Level>(i);
            if (!tallow::level_supported(level)) continue;
            std::printf("%s %s\n", test->name, test->every_level ? tallow::level_name(level) : "");
            std::fflush(stdout);
            if (test->every_level) tallow::set_level(level);
            test->run();
            ++count;
            if (!test->every_level) break;
        }
    }
    std::printf("%d tests passed\n", count);
    return count ? 0 : 1;
}
