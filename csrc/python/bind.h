#pragma once

#include <nanobind/nanobind.h>

namespace tallow {

class Matrix;
struct PackedMatrix;

// A matrix whose panels may be read: waits, without the GIL, if it is still being packed.
const PackedMatrix& ready(Matrix& matrix);

void bind_arithmetic(nanobind::module_& m);
void bind_conv(nanobind::module_& m);
void bind_linear(nanobind::module_& m);
void bind_attention(nanobind::module_& m);
void bind_norm(nanobind::module_& m);
void bind_positions(nanobind::module_& m);
void bind_rowwise(nanobind::module_& m);
void bind_strings(nanobind::module_& m);
void bind_search(nanobind::module_& m);
void bind_tape(nanobind::module_& m);

}  // namespace tallow
