// Native tests: TEST(name) { CHECK(condition); } in any file of this folder; main.cpp runs them all. A LEVEL_TEST runs
// once at every level that the processor has.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace tallow::testing {

struct Test {
    const char* name;
    void (*run)();
    bool every_level;
    Test* next;
    static Test*& first() {
        static Test* test = nullptr;
        return test;
    }
    Test(const char* n, void (*r)(), bool e) : name(n), run(r), every_level(e), next(first()) { first() = this; }
};

}  // namespace tallow::testing

#define TALLOW_TEST(name, every_level)                                          \
    static void test_##name();                                                  \
    static tallow::testing::Test entry_##name(#name, test_##name, every_level); \
    static void test_##name()
#define TEST(name) TALLOW_TEST(name, false)
#define LEVEL_TEST(name) TALLOW_TEST(name, true)

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            std::fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                                      \
        }                                                                                      \
    } while (false)
