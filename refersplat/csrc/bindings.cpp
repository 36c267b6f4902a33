// What Python sees of the CPU ops. Arguments are NumPy views of the tensors' memory; the Python
// wrappers allocate the outputs and check shapes.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "knn.h"

namespace py = pybind11;

namespace {

// Rows in memory one after another, of exactly this type: anything else is refused, not converted.
template <typename T>
using Array = py::array_t<T, py::array::c_style>;

template <typename T>
void bind_knn(py::module_& module) {
  module.def(
      "knn",
      [](const Array<T>& queries, const Array<T>& points, int threads, Array<T>& squared_distances,
         Array<int64_t>& indices) {
        const int64_t num_queries = queries.shape(0), num_points = points.shape(0);
        const int64_t k = indices.shape(1);
        const T *from = queries.data(), *to = points.data();
        T* distances_out = squared_distances.mutable_data();
        int64_t* indices_out = indices.mutable_data();
        py::gil_scoped_release release;
        refer::knn(from, num_queries, to, num_points, k, threads, distances_out, indices_out);
      },
      py::arg("queries").noconvert(), py::arg("points").noconvert(), py::arg("threads"),
      py::arg("squared_distances").noconvert(), py::arg("indices").noconvert());
}

}  // namespace

void bind_rendering(py::module_& module);
void bind_training(py::module_& module);

PYBIND11_MODULE(REFER_MODULE_NAME, module) {
  bind_knn<float>(module);
  bind_knn<double>(module);
  bind_rendering(module);
  bind_training(module);
}
