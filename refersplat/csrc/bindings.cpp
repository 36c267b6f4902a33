// The module of CPU ops, and nearest neighbours. Arguments are NumPy views of the tensors' memory;
// the Python wrappers allocate the outputs and check shapes.
#include "bindings.h"

#include "knn.h"

namespace py = pybind11;
using refer::Array;

namespace {

template <typename T>
void bind_knn(py::module_& module) {
  module.def(
      "knn",
      [](const Array<T>& queries, const Array<T>& points, int threads, Array<T>& squared_distances,
         Array<int64_t>& indices) {
        refer::knn(queries.data(), queries.shape(0), points.data(), points.shape(0),
                   indices.shape(1), threads, squared_distances.mutable_data(),
                   indices.mutable_data());
      },
      refer::WithoutGil());
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
