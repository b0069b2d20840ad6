// A matrix of weights in the form that kernels read, and what is asked of them: packing, products, single rows.
//
// The weights (n output features, k inputs) lie in panels of `panel` features. Inside a panel inputs run slowest, in
// units of one or a few that the level multiplies at once: feature f's input i stands at place
// ((i / unit) * panel + f) * unit + i % unit. So a kernel that walks the inputs reads a panel from front to back, in
// vectors of features. Features that fill up the last panel, and inputs that fill up the last unit, are zeros.
//
// Every output is one chain of sums over the inputs in their order, whatever rows and features are computed beside it:
// that makes results independent of batching and threads to the last bit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tallow {

// i8 has one scale for each feature, i8_groups one for each group of its inputs. Those from q8_0 on are GGUF's blocks
// (int8/block_format.h).
enum class Storage : std::uint8_t { f32, f16, bf16, i8, i8_groups, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k };
constexpr int storage_count = 13;
constexpr bool in_blocks(Storage storage) { return storage >= Storage::q8_0; }

// A group of inputs that shares a scale divides this number, and is a multiple of 8.
constexpr std::int64_t largest_group = 256;

struct MatrixKernels;

struct PackedMatrix {
    const MatrixKernels* kernels;  // of the level it is packed for
    Storage storage;
    std::int64_t n, k;
    std::int64_t group;        // inputs that share a scale; k itself but for i8_groups and blocks
    std::int64_t panel_bytes;  // from one panel to the next
    unsigned char* panels;
    float* scales;  // of i8 and i8_groups: [panel][group][feature]; nullptr for others
};

// What a matrix is packed from: any strides, in elements, at any address. Its elements are of the types of Storage.
struct PackArgs {
    const PackedMatrix* matrix;
    Storage from;
    const void* source;
    std::int64_t row_stride, column_stride;
    const float* scales;               // from int8: [feature][group]
    const unsigned char* const* rows;  // of blocks, instead of a source and strides: where each row's begin
};

// The windows of a convolution's input, whose memory has channels last (one float apart); strides in floats. Input beyond
// the edges is zero. One row of the product is one window: its taps line by line, each with all its channels.
struct Windows {
    std::int64_t height, width, channels;  // of an image
    std::int64_t image_stride, line_stride, pixel_stride;
    std::int64_t out_height, out_width;
    std::int64_t kernel_height, kernel_width;
    std::int64_t step_y, step_x, padding_y, padding_x, dilation_y, dilation_x;
};

// Rows of activations: `stride` floats apart, or windows, if there are any.
struct Rows {
    const float* data;
    std::int64_t stride;
    bool windowed;
    Windows windows;
};

enum class Activation : std::uint8_t { none, gelu, gelu_tanh, silu, relu };

// out = activation(x · weightᵀ + bias) · scale + residual
struct LinearArgs {
    const PackedMatrix* weight;
    Rows x;
    std::int64_t rows;
    float* out;
    std::int64_t out_stride;
    const float* bias;      // (n), or nullptr
    const float* scale;     // (n), or nullptr
    const float* residual;  // nullptr, or a matrix like out, which may be out itself
    std::int64_t residual_stride;
    Activation activation;
};

// Activations in 8 bits (held in 16 at some levels), made on the fly for one product. Their inputs are cut into stretches;
// all rows of the first stretch come first, a fixed number of bytes apart, then those of the second.
struct QuantizedRows {
    unsigned char* values;
    std::int64_t rows, groups;
    float* scales;       // [row][group]
    std::int32_t* sums;  // [row][group], of the values; for blocks, what their kernels make of that
};

// A stretch of rows and of panels, computed by one thread.
struct Tile {
    std::int64_t row_begin, row_end, panel_begin, panel_end;
};

// How one storage type is packed and multiplied at one level.
struct MatrixKernels {
    int panel, padding;  // features in a panel; inputs are filled up with zeros to a multiple of padding
    int unit_bytes;      // that `padding` inputs of a panel take
    int group, source_bytes;      // of blocks: inputs that share a scale, and bytes of `padding` inputs in a file
    int block_rows;               // rows that one inner kernel takes
    int stretch, row_bytes;       // of quantised rows: inputs in a stretch, bytes from row to row; 0 for floats
    std::size_t (*scratch_bytes)(const LinearArgs& args, const Tile& tile);
    void (*pack)(const PackArgs& args, std::int64_t panel_begin, std::int64_t panel_end);
    void (*unpack)(const PackedMatrix& matrix, std::int64_t row, float* out);
    // nullptr for floats; scratch holds a row of floats if rows are windows
    void (*quantize)(const LinearArgs& args, const QuantizedRows& to, std::int64_t row_begin, std::int64_t row_end,
                     void* scratch);
    void (*multiply)(const LinearArgs& args, const QuantizedRows* x, const Tile& tile, void* scratch);
};

}  // namespace tallow
