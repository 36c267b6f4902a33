// Bindings of the ops that only training uses.
#include "adam.h"
#include "bindings.h"
#include "ssim.h"

namespace py = pybind11;
using refer::Array;

namespace {

template <typename T>
void bind(py::module_& module) {
  module.def(
      "ssim",
      [](const Array<T>& image, const Array<T>& target, int threads, Array<T>& gradient) {
        return refer::ssim(image.data(), target.data(), image.shape(0), image.shape(1),
                           image.shape(2), threads,
                           gradient.size() ? gradient.mutable_data() : nullptr);
      },
      refer::WithoutGil());
  module.def(
      "adam",
      [](Array<T>& parameter, const Array<T>& gradient, Array<T>& first, Array<T>& second,
         const Array<T>& rates, double beta1, double beta2, double epsilon, int64_t step,
         int threads) {
        const int64_t columns = rates.size(), rows = columns ? parameter.size() / columns : 0;
        refer::adam(parameter.mutable_data(), gradient.data(), first.mutable_data(),
                    second.mutable_data(), rates.data(), rows, columns,
                    refer::AdamStep{beta1, beta2, epsilon, step}, threads);
      },
      refer::WithoutGil());
}

}  // namespace

void bind_training(py::module_& module) {
  bind<float>(module);
  bind<double>(module);
}
