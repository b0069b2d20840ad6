#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <optional>
#include <stdexcept>
#include <utility>

#include "ops/conv.h"
#include "ops/linear.h"
#include "ops/packing.h"
#include "python/array.h"
#include "python/bind.h"
#include "python/tape.h"

namespace nb = nanobind;

namespace tallow {

namespace {

constexpr std::int64_t most = std::int64_t(1) << 31;  // products of such sizes don't overflow

using Pair = std::pair<std::int64_t, std::int64_t>;

void require(bool fits, const char* what) {
    if (!fits) throw std::invalid_argument(std::string("conv: ") + what + " does not fit");
}

// x (b, h, w, c), its last axis without gaps.
Rows windows_of(const Array& x, Pair kernel, Pair step, Pair padding, Pair dilation) {
    require(x.ndim == 4 && (x.size() == 0 || x.shape[3] == 1 || x.strides[3] == 4), "x");
    for (int i = 0; i < 3; ++i) require(x.strides[i] % 4 == 0, "x");
    const Pair sizes[] = {kernel, step, dilation, {padding.first + 1, padding.second + 1}};
    for (auto [vertical, horizontal] : sizes)
        require(vertical > 0 && horizontal > 0 && vertical < most && horizontal < most, "geometry");
    Rows rows{};
    rows.data = x.as<const float>(DType::f32, "x");
    rows.windowed = true;
    Windows& w = rows.windows;
    w = {x.shape[1], x.shape[2], x.shape[3], x.strides[0] / 4, x.strides[1] / 4, x.strides[2] / 4, 0, 0,
         kernel.first, kernel.second, step.first, step.second, padding.first, padding.second, dilation.first, dilation.second};
    const std::int64_t room_y = w.height + 2 * w.padding_y - w.dilation_y * (w.kernel_height - 1) - 1;
    const std::int64_t room_x = w.width + 2 * w.padding_x - w.dilation_x * (w.kernel_width - 1) - 1;
    require(room_y >= 0 && room_x >= 0, "kernel");
    w.out_height = room_y / w.step_y + 1;
    w.out_width = room_x / w.step_x + 1;
    return rows;
}

// out (b, h', w', n) in C order
void bind_product(const Array& out, const Array& x, Matrix& weight, std::optional<Array> bias, int activation,
                  Pair kernel, Pair step, Pair padding, Pair dilation) {
    LinearArgs args{};
    args.weight = &ready(weight);
    args.x = windows_of(x, kernel, step, padding, dilation);
    const Windows& w = args.x.windows;
    const std::int64_t n = args.weight->n;
    require(args.weight->k == w.kernel_height * w.kernel_width * w.channels, "weight");
    require(out.ndim == 4 && out.shape[0] == x.shape[0] && out.shape[1] == w.out_height && out.shape[2] == w.out_width &&
                out.shape[3] == n && out.contiguous() && out.writable, "out");
    require(activation >= 0 && activation <= static_cast<int>(Activation::relu), "activation");
    args.rows = x.shape[0] * w.out_height * w.out_width;
    args.out = out.as<float>(DType::f32, "out");
    args.out_stride = n;
    if (bias) {
        require(bias->contiguous() && bias->size() == n, "bias");
        args.bias = bias->as<const float>(DType::f32, "bias");
    }
    args.activation = static_cast<Activation>(activation);
    perform([args] { linear(args); });
}

// out (b, h', w', c) in C order, weight (taps, c)
void bind_depthwise(const Array& out, const Array& x, const Array& weight, std::optional<Array> bias, Pair kernel, Pair step,
                    Pair padding, Pair dilation) {
    DepthwiseArgs args{};
    const Rows rows = windows_of(x, kernel, step, padding, dilation);
    args.x = rows.data;
    const Windows& w = args.windows = rows.windows;
    require(weight.ndim == 2 && weight.contiguous() && weight.shape[0] == w.kernel_height * w.kernel_width &&
                weight.shape[1] == w.channels, "weight");
    require(out.ndim == 4 && out.shape[0] == x.shape[0] && out.shape[1] == w.out_height && out.shape[2] == w.out_width &&
                out.shape[3] == w.channels && out.contiguous() && out.writable, "out");
    args.weight = weight.as<const float>(DType::f32, "weight");
    args.out = out.as<float>(DType::f32, "out");
    if (bias) {
        require(bias->contiguous() && bias->size() == w.channels, "bias");
        args.bias = bias->as<const float>(DType::f32, "bias");
    }
    perform([args, images = x.shape[0]] { depthwise(args, images); });
}

// out (b, h, w, c) in C order, x (b, c, h, w) of any strides
void bind_channels_last(const Array& out, const Array& x) {
    require(x.ndim == 4 && out.ndim == 4 && out.contiguous() && out.writable, "out");
    require(out.shape[0] == x.shape[0] && out.shape[1] == x.shape[2] && out.shape[2] == x.shape[3] &&
                out.shape[3] == x.shape[1], "out");
    for (int i = 0; i < 4; ++i) require(x.strides[i] % 4 == 0, "x");
    const ChannelsLastArgs args{out.as<float>(DType::f32, "out"), x.as<const float>(DType::f32, "x"),
                                x.shape[0], x.shape[1], x.shape[2], x.shape[3],
                                x.strides[0] / 4, x.strides[1] / 4, x.strides[2] / 4, x.strides[3] / 4};
    perform([args] { channels_last(args); });
}

}  // namespace

void bind_conv(nb::module_& m) {
    m.def("conv", &bind_product, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg());
    m.def("depthwise", &bind_depthwise, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
          nb::arg());
    m.def("channels_last", &bind_channels_last);
}

}  // namespace tallow
