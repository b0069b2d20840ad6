// Numbers that look random and are the same everywhere.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace tallow::testing {

class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
    std::uint32_t bits() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return static_cast<std::uint32_t>(state_ >> 33);
    }
    std::int64_t below(std::int64_t limit) { return static_cast<std::int64_t>(bits()) % limit; }
    float number() { return static_cast<float>(bits()) / 1073741824.0f - 1.0f; }  // from -1 to 1
    std::vector<float> numbers(std::int64_t count) {
        std::vector<float> values(count);
        for (float& value : values) value = number();
        return values;
    }

private:
    std::uint64_t state_;
};

// Whether a sum of products in float32 is as near to the exact one as rounding lets it be; size is the sum of |products|.
inline bool near(float found, double exact, double size, std::int64_t count) {
    return std::fabs(found - exact) <= 2e-7 * (1 + static_cast<double>(count) / 8) * size + 1e-9;
}

}  // namespace tallow::testing
