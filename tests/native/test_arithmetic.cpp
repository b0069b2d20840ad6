// Elementwise functions over operands of any strides, against plain loops.
#include <limits>
#include <vector>

#include "check.h"
#include "core/thread_pool.h"
#include "ops/arithmetic.h"
#include "random.h"

using namespace tallow;
using testing::Random;

namespace {

// A result of shape (rows, columns); x lies by columns, y is one row for all, the condition one column for all.
struct Problem {
    std::int64_t rows, columns;
    std::vector<float> x, y;
    std::vector<std::uint8_t> condition;

    Problem(std::int64_t r, std::int64_t c, Random& random)
        : rows(r), columns(c), x(random.numbers(r * c)), y(random.numbers(c)), condition(r) {
        for (std::int64_t i = 0; i < r; ++i) condition[i] = i % 3 != 0;
        for (std::int64_t i = 0; i < c; i += 2) x[i * r] = y[i];  // some equals
        y[c / 2] = std::numeric_limits<float>::quiet_NaN();
    }

    ElementwiseArgs args(void* out) const {
        ElementwiseArgs args{};
        args.out = out;
        args.x = {x.data(), {1, rows}};
        args.y = {y.data(), {0, 1}};
        args.condition = {condition.data(), {1, 0}};
        args.shape[0] = rows, args.shape[1] = columns, args.axes = 2;
        return args;
    }

    // Whether a function gives f(condition, x, y) everywhere, with any number of threads.
    template <typename T, typename F>
    bool gives(const char* name, F f) const {
        const Elementwise* const function = elementwise(name);
        for (int threads : {1, 3}) {
            ThreadPool::instance().set_threads(threads);
            std::vector<T> out(rows * columns);
            function->run(args(out.data()));
            for (std::int64_t i = 0; i < rows; ++i)
                for (std::int64_t j = 0; j < columns; ++j) {
                    const T found = out[i * columns + j], wanted = f(condition[i], x[j * rows + i], y[j]);
                    if (found != wanted && (found == found || wanted == wanted)) return false;
                }
        }
        return true;
    }
};

}  // namespace

TEST(elementwise_functions_of_any_strides) {
    Random random(31);
    for (std::int64_t rows : {1, 2, 7, 300})
        for (std::int64_t columns : {1, 2, 5, 170}) {
            const Problem problem(rows, columns, random);
            CHECK(problem.gives<float>("add", [](bool, float a, float b) { return a + b; }));
            CHECK(problem.gives<float>("negative", [](bool, float a, float) { return -a; }));
            CHECK(problem.gives<std::uint8_t>("less_equal", [](bool, float a, float b) { return a <= b; }));
            CHECK(problem.gives<std::uint8_t>("not_equal", [](bool, float a, float b) { return a != b; }));
            CHECK(problem.gives<float>("where", [](bool first, float a, float b) { return first ? a : b; }));
            CHECK(problem.gives<float>("maximum", [](bool, float a, float b) { return a >= b || a != a ? a : b; }));
        }
    ThreadPool::instance().set_threads(2);
}

TEST(functions_are_found_by_name) {
    CHECK(elementwise("less")->compares && !elementwise("less")->has_condition);
    CHECK(elementwise("where")->has_condition && !elementwise("where")->compares);
    CHECK(elementwise("erf") == nullptr);
}
