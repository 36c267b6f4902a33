// What Python sees of the ops that only training uses.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "adam.h"
#include "ssim.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

template <typename T>
void bind_ssim(py::module_& module) {
  module.def(
      "ssim",
      [](const Array<T>& image, const Array<T>& target, int threads, Array<T>& gradient) {
        const T *x = image.data(), *y = target.data();
        T* slope = gradient.size() ? gradient.mutable_data() : nullptr;
        const int64_t channels = image.shape(0), height = image.shape(1), width = image.shape(2);
        py::gil_scoped_release release;
        return refer::ssim(x, y, channels, height, width, threads, slope);
      },
      py::arg("image").noconvert(), py::arg("target").noconvert(), py::arg("threads"),
      py::arg("gradient").noconvert());
}

template <typename T>
void bind_adam(py::module_& module) {
  module.def(
      "adam",
      [](Array<T>& parameter, const Array<T>& gradient, Array<T>& first, Array<T>& second,
         const Array<T>& rates, double beta1, double beta2, double epsilon, int64_t step,
         int threads) {
        const int64_t columns = rates.size(), rows = columns ? parameter.size() / columns : 0;
        T *p = parameter.mutable_data(), *m = first.mutable_data(), *v = second.mutable_data();
        const T *g = gradient.data(), *rate = rates.data();
        const refer::AdamStep settings{beta1, beta2, epsilon, step};
        py::gil_scoped_release release;
        refer::adam(p, g, m, v, rate, rows, columns, settings, threads);
      },
      py::arg("parameter").noconvert(), py::arg("gradient").noconvert(),
      py::arg("first").noconvert(), py::arg("second").noconvert(), py::arg("rates").noconvert(),
      py::arg("beta1"), py::arg("beta2"), py::arg("epsilon"), py::arg("step"), py::arg("threads"));
}

}  // namespace

void bind_training(py::module_& module) {
  bind_ssim<float>(module);
  bind_ssim<double>(module);
  bind_adam<float>(module);
  bind_adam<double>(module);
}
