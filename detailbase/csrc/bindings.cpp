// What Python sees of the CPU ops. Arguments are NumPy views of the tensors' memory; the Python
// wrappers check shapes and allocate the outputs whose size they know.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "kernel_map.h"
#include "segment_reduce.h"
#include "sparse_conv.h"
#include "superpoints.h"
#include "voxelize.h"

namespace py = pybind11;

namespace {

// Rows in memory one after another, of exactly this type: anything else is refused, not converted.
template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// Hands a vector's memory to NumPy without copying it.
template <typename V>
py::array as_array(std::vector<V>&& values) {
  auto* kept = new std::vector<V>(std::move(values));
  py::capsule owner(kept, [](void* p) { delete static_cast<std::vector<V>*>(p); });
  return py::array_t<V>(py::ssize_t(kept->size()), kept->data(), owner);
}

py::tuple as_tuple(refer::PairList&& list) {
  return py::make_tuple(as_array(std::move(list.inputs)), as_array(std::move(list.outputs)),
                        as_array(std::move(list.starts)));
}

template <typename Int>
void bind_voxels(py::module_& module) {
  module.def(
      "voxelize",
      [](const Array<Int>& coords, const Array<Int>& batch, int threads,
         Array<int64_t>& point_to_voxel) {
        const Int *at = coords.data(), *scene = batch.data();
        const int64_t count = coords.shape(0);
        int64_t* voxel = point_to_voxel.mutable_data();
        std::vector<Int> voxels;
        {
          py::gil_scoped_release release;
          voxels = refer::voxelize(at, scene, count, threads, voxel);
        }
        return as_array(std::move(voxels));
      },
      py::arg("coords").noconvert(), py::arg("batch").noconvert(), py::arg("threads"),
      py::arg("point_to_voxel").noconvert());
  module.def(
      "submanifold_map",
      [](const Array<Int>& voxels, int64_t block, int threads) {
        const Int* at = voxels.data();
        const int64_t count = voxels.shape(0);
        refer::PairList pairs;
        {
          py::gil_scoped_release release;
          pairs = refer::submanifold_map(at, count, block, threads);
        }
        return as_tuple(std::move(pairs));
      },
      py::arg("voxels").noconvert(), py::arg("block"), py::arg("threads"));
  module.def(
      "strided_map",
      [](const Array<Int>& voxels, const std::array<int64_t, 3>& shape, int64_t block,
         int threads) {
        const Int* at = voxels.data();
        const int64_t count = voxels.shape(0);
        refer::StridedMap<Int> map;
        {
          py::gil_scoped_release release;
          map = refer::strided_map(at, count, shape.data(), block, threads);
        }
        return py::make_tuple(as_array(std::move(map.coarse)), as_tuple(std::move(map.down)),
                              as_tuple(std::move(map.up)));
      },
      py::arg("voxels").noconvert(), py::arg("shape"), py::arg("block"), py::arg("threads"));
}

refer::Pairs pairs_of(const Array<int32_t>& inputs, const Array<int32_t>& outputs,
                      const Array<int64_t>& starts, int64_t volume, int64_t num_inputs,
                      int64_t num_outputs, int64_t block, bool is_mirrored) {
  return {inputs.data(), outputs.data(), starts.data(), volume,
          num_inputs,    num_outputs,    block,         is_mirrored};
}

// Arrays of a call are of one type: the Python wrappers check it. A weight comes as it lies.
template <typename T, typename Convolve>
void bind_sparse_conv(py::module_& module, const char* name, Convolve convolve) {
  module.def(name, [convolve](const Array<T>& features, const py::array_t<T>& weight,
                              const Array<int32_t>& inputs, const Array<int32_t>& outputs,
                              const Array<int64_t>& starts, int64_t block, bool is_mirrored,
                              const Array<T>& bias, const Array<T>& residual, bool relu,
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
    const T* from = features.data();
    T* to = out.mutable_data();
    py::gil_scoped_release release;
    convolve(from, layout, pairs, epilogue, threads, to);
  });
}

template <typename T>
void bind_features(py::module_& module) {
  bind_sparse_conv<T>(module, "sparse_conv", refer::sparse_conv<T>);
  module.def("sparse_conv_weight_grad",
             [](const Array<T>& features, const Array<T>& grad, const Array<int32_t>& inputs,
                const Array<int32_t>& outputs, const Array<int64_t>& starts, int64_t block,
                bool is_mirrored, int threads, Array<T>& grad_weight) {
               const auto pairs = pairs_of(inputs, outputs, starts, grad_weight.shape(0),
                                           features.shape(0), grad.shape(0), block, is_mirrored);
               const T *from = features.data(), *toward = grad.data();
               const int64_t in_channels = features.shape(1), out_channels = grad.shape(1);
               T* to = grad_weight.mutable_data();
               py::gil_scoped_release release;
               refer::sparse_conv_weight_grad(from, in_channels, toward, out_channels, pairs,
                                              threads, to);
             });
  module.def("segment_sum", [](const Array<T>& values, const Array<int64_t>& segments, int threads,
                               Array<T>& out) {
    const T* from = values.data();
    const int64_t *segment = segments.data(), rows = values.shape(0), channels = values.shape(1);
    const int64_t count = out.shape(0);
    T* to = out.mutable_data();
    py::gil_scoped_release release;
    refer::segment_sum(from, segment, rows, channels, count, threads, to);
  });
  module.def("segment_max", [](const Array<T>& values, const Array<int64_t>& segments, int threads,
                               Array<T>& out, Array<int64_t>& largest) {
    const T* from = values.data();
    const int64_t *segment = segments.data(), rows = values.shape(0), channels = values.shape(1);
    const int64_t count = out.shape(0);
    T* to = out.mutable_data();
    int64_t* row = largest.mutable_data();
    py::gil_scoped_release release;
    refer::segment_max(from, segment, rows, channels, count, threads, to, row);
  });
}

template <typename T>
void bind_superpoints(py::module_& module) {
  module.def("mesh_superpoints", [](const Array<T>& vertices, const Array<int64_t>& faces, double k,
                                    int64_t min_size, bool as_scannet, int threads,
                                    Array<int64_t>& labels) {
    const T* at = vertices.data();
    const int64_t *corners = faces.data(), num_vertices = vertices.shape(0);
    const int64_t num_faces = faces.shape(0);
    const auto rule = as_scannet ? refer::MeshRule::kScannet : refer::MeshRule::kArea;
    int64_t* to = labels.mutable_data();
    py::gil_scoped_release release;
    refer::mesh_superpoints(at, num_vertices, corners, num_faces, k, min_size, rule, threads, to);
  });
  module.def("cloud_superpoints", [](const Array<T>& points, int64_t neighbours, double k,
                                     int64_t min_size, int threads, Array<int64_t>& labels) {
    const T* at = points.data();
    const int64_t num_points = points.shape(0);
    int64_t* to = labels.mutable_data();
    py::gil_scoped_release release;
    refer::cloud_superpoints(at, num_points, neighbours, k, min_size, threads, to);
  });
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
