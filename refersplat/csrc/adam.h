// One step of Adam for rows whose columns have learning rates of their own.
#pragma once

#include <cstdint>

namespace refer {

struct AdamStep {
  double beta1, beta2, epsilon;
  int64_t step;  // counted from 1
};

// Updates `parameter`, `first` and `second`, all [N, D] like `gradient`, in place; `rates` is [D].
template <typename T>
void adam(T* parameter, const T* gradient, T* first, T* second, const T* rates, int64_t rows,
          int64_t columns, const AdamStep& step, int threads);

}  // namespace refer
