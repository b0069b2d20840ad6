// Matrices of weights: their memory, packing, and rows out of them.
#pragma once

#include "kernels/matrix.h"

namespace tallow {

// The owner of a packed matrix's memory.
class Matrix {
public:
    // An empty matrix of n features and k inputs in the form of the active level; `group` inputs share a scale:
    // all k, but for i8_groups and blocks.
    // Throws std::bad_alloc.
    Matrix(Storage storage, std::int64_t n, std::int64_t k, std::int64_t group);
    ~Matrix();
    Matrix(const Matrix&) = delete;

    void pack(PackArgs args);                          // all panels, shared out to the pool
    void rows(const std::int64_t* ids, std::int64_t count, float* out) const;  // each from 0 to n - 1
    const PackedMatrix& packed() const { return packed_; }
    std::size_t bytes() const { return bytes_; }
    std::int64_t groups() const;
    bool scales_finite() const;  // not so after packing numbers that aren't

private:
    PackedMatrix packed_;
    std::size_t bytes_;
};

}  // namespace tallow
