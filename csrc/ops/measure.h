// What this machine can do at most, on the threads of the pool.
#pragma once

#include <cstdint>

namespace tallow {

// Floating-point operations a second of a loop of multiply-adds on registers, two operations each.
double measure_multiply_add(double seconds);

// Bytes a second of reading so much memory from front to back, again and again.
double measure_read(std::int64_t bytes, double seconds);

}  // namespace tallow
