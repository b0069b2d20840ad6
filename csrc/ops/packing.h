// Matrices of weights: their memory, packing, and rows out of them.
#pragma once

#include <memory>
#include <vector>

#include "core/background.h"
#include "kernels/matrix.h"

namespace tallow {

// Rows of GGUF's blocks. If they lie in a mapped file, its pages are given back when they have been read.
struct BlockRows {
    const unsigned char* data;
    std::int64_t rows, stride;
    bool mapped;
};

// The owner of a packed matrix's memory.
class Matrix {
public:
    // An empty matrix of n features and k inputs in the form of the active level; `group` inputs share a scale:
    // all k, but for i8_groups and blocks.
    // Throws std::bad_alloc.
    Matrix(Storage storage, std::int64_t n, std::int64_t k, std::int64_t group);
    Matrix(const Matrix&) = delete;

    ~Matrix();

    void pack(PackArgs args);                          // all panels, shared out to the pool
    // The same in the background, from GGUF's blocks; `source` keeps them until `settle`.
    void pack_later(std::vector<BlockRows> parts, std::shared_ptr<void> source);
    bool settled() const { return !packing_; }
    void wait() const;  // until it is packed
    void settle();      // wait, and let go of the source
    void rows(const std::int64_t* ids, std::int64_t count, float* out) const;  // each from 0 to n - 1
    const PackedMatrix& packed() const { return packed_; }  // whose panels are to be read once it is settled
    std::size_t bytes() const { return bytes_; }
    std::int64_t groups() const;
    bool scales_finite() const;  // not so after packing numbers that aren't

private:
    PackedMatrix packed_;
    std::size_t bytes_;
    std::shared_ptr<void> memory_, source_;
    std::shared_ptr<Task> packing_;
};

}  // namespace tallow
