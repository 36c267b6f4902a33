// The module of CPU ops. Arguments are NumPy views of the tensors' memory; the Python wrappers
// check shapes and allocate the outputs whose size they know.
#include "bindings.h"

#include <pybind11/stl.h>

#include <array>

#include "kernel_map.h"
#include "segment_reduce.h"
#include "sparse_conv.h"
#include "superpoints.h"
#include "voxelize.h"

namespace py = pybind11;
using refer::Array;
using refer::to_array;

namespace {

py::tuple as_tuple(refer::PairList&& list) {
  return py::make_tuple(to_array<int32_t>(std::move(list.inputs)),
                        to_array<int32_t>(std::move(list.outputs)),
                        to_array<int64_t>(std::move(list.starts)));
}

template <typename Int>
void bind_voxels(py::module_& module) {
  module.def("voxelize", [](const Array<Int>& coords, const Array<Int>& batch, int threads,
                            Array<int64_t>& point_to_voxel) {
    int64_t* const voxel = point_to_voxel.mutable_data();
    std::vector<Int> voxels;
    {
      py::gil_scoped_release release;
      voxels = refer::voxelize(coords.data(), batch.data(), coords.shape(0), threads, voxel);
    }
    return to_array<Int>(std::move(voxels));
  });
  module.def("submanifold_map", [](const Array<Int>& voxels, int64_t block, int threads) {
    refer::PairList pairs;
    {
      py::gil_scoped_release release;
      pairs = refer::submanifold_map(voxels.data(), voxels.shape(0), block, threads);
    }
    return as_tuple(std::move(pairs));
  });
  module.def("strided_map", [](const Array<Int>& voxels, const std::array<int64_t, 3>& shape,
                               int64_t block, int threads) {
    refer::StridedMap<Int> map;
    {
      py::gil_scoped_release release;
      map = refer::strided_map(voxels.data(), voxels.shape(0), shape.data(), block, threads);
    }
    return py::make_tuple(to_array<Int>(std::move(map.coarse)), as_tuple(std::move(map.down)),
                          as_tuple(std::move(map.up)));
  });
}

refer::Pairs pairs_of(const Array<int32_t>& inputs, const Array<int32_t>& outputs,
                      const Array<int64_t>& starts, int64_t volume, int64_t num_inputs,
                      int64_t num_outputs, int64_t block, bool is_mirrored) {
  return {inputs.data(), outputs.data(), starts.data(), volume,
          num_inputs,    num_outputs,    block,         is_mirrored};
}

// A weight comes with its strides. Bias and residual have no size where there is none.
template <typename T, typename Convolve>
void bind_sparse_conv(py::module_& module, const char* name, Convolve convolve) {
  module.def(
      name,
      [convolve](const Array<T>& features, const Array<T, 0>& weight, const Array<int32_t>& inputs,
                 const Array<int32_t>& outputs, const Array<int64_t>& starts, int64_t block,
                 bool is_mirrored, const Array<T>& bias, const Array<T>& residual, bool relu,
                 int threads, Array<T>& out) {
        const auto pairs = pairs_of(inputs, outputs, starts, weight.shape(0), features.shape(0),
                                    out.shape(0), block, is_mirrored);
        const int64_t size = sizeof(T);
        const refer::Weight<T> layout{weight.data(),
                                      weight.strides(0) / size,
                                      weight.strides(1) / size,
                                      weight.strides(2) / size,
                                      weight.shape(1),
                                      weight.shape(2)};
        const refer::Epilogue<T> epilogue{bias.size() ? bias.data() : nullptr,
                                          residual.size() ? residual.data() : nullptr, relu};
        convolve(features.data(), layout, pairs, epilogue, threads, out.mutable_data());
      },
      refer::WithoutGil());
}

template <typename T>
void bind_features(py::module_& module) {
  bind_sparse_conv<T>(module, "sparse_conv", refer::sparse_conv<T>);
  module.def(
      "sparse_conv_weight_grad",
      [](const Array<T>& features, const Array<T>& grad, const Array<int32_t>& inputs,
         const Array<int32_t>& outputs, const Array<int64_t>& starts, int64_t block,
         bool is_mirrored, int threads, Array<T>& grad_weight) {
        const auto pairs = pairs_of(inputs, outputs, starts, grad_weight.shape(0),
                                    features.shape(0), grad.shape(0), block, is_mirrored);
        refer::sparse_conv_weight_grad(features.data(), features.shape(1), grad.data(),
                                       grad.shape(1), pairs, threads, grad_weight.mutable_data());
      },
      refer::WithoutGil());
  module.def(
      "segment_sum",
      [](const Array<T>& values, const Array<int64_t>& segments, int threads, Array<T>& out) {
        refer::segment_sum(values.data(), segments.data(), values.shape(0), values.shape(1),
                           out.shape(0), threads, out.mutable_data());
      },
      refer::WithoutGil());
  module.def(
      "segment_max",
      [](const Array<T>& values, const Array<int64_t>& segments, int threads, Array<T>& out,
         Array<int64_t>& largest) {
        refer::segment_max(values.data(), segments.data(), values.shape(0), values.shape(1),
                           out.shape(0), threads, out.mutable_data(), largest.mutable_data());
      },
      refer::WithoutGil());
}

template <typename T>
void bind_superpoints(py::module_& module) {
  module.def(
      "mesh_superpoints",
      [](const Array<T>& vertices, const Array<int64_t>& faces, double k, int64_t min_size,
         bool as_scannet, int threads, Array<int64_t>& labels) {
        const auto rule = as_scannet ? refer::MeshRule::kScannet : refer::MeshRule::kArea;
        refer::mesh_superpoints(vertices.data(), vertices.shape(0), faces.data(), faces.shape(0), k,
                                min_size, rule, threads, labels.mutable_data());
      },
      refer::WithoutGil());
  module.def(
      "cloud_superpoints",
      [](const Array<T>& points, const Array<T>& colors, int64_t neighbours, double scale,
         int64_t min_size, int threads, Array<int64_t>& labels) {
        refer::cloud_superpoints(points.data(), colors.data(), points.shape(0), neighbours, scale,
                                 min_size, threads, labels.mutable_data());
      },
      refer::WithoutGil());
}

}  // namespace

PYBIND11_MODULE(REFER_MODULE_NAME, module) {
  bind_voxels<int32_t>(module);
  bind_voxels<int64_t>(module);
  bind_features<float>(module);
  bind_features<double>(module);
  module.def("has_bfloat16", &refer::has_bfloat16);
  bind_sparse_conv<float>(module, "sparse_conv_bfloat16", refer::sparse_conv_bfloat16);
  bind_superpoints<float>(module);
  bind_superpoints<double>(module);
}
