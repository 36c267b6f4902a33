// One pass over memory, which is what an optimiser's step costs.
#include "adam.h"

#include <cmath>
#include <vector>

#include "parallel.h"

namespace refer {
namespace {

constexpr int64_t kRowsAtOnce = 16;  // their rates stand side by side, so that vectors are full
constexpr int64_t kGrain = 1 << 14;  // numbers

}  // namespace

template <typename T>
void adam(T* parameter, const T* gradient, T* first, T* second, const T* rates, int64_t rows,
          int64_t columns, const AdamStep& step, int threads) {
  const T b1 = step.beta1, b2 = step.beta2, epsilon = step.epsilon;
  const T a1 = 1 - step.beta1, a2 = 1 - step.beta2;
  const double unbias = 1 / (1 - std::pow(step.beta1, step.step));
  const T root = 1 / std::sqrt(1 - std::pow(step.beta2, step.step));
  std::vector<T> sizes(kRowsAtOnce * columns);
  for (size_t i = 0; i < sizes.size(); ++i) sizes[i] = rates[i % columns] * unbias;

  const int64_t block = static_cast<int64_t>(sizes.size()), count = rows * columns;
  const int64_t blocks = (count + block - 1) / std::max<int64_t>(block, 1);
  const int64_t grain = kGrain / std::max<int64_t>(block, 1) + 1;
  parallel_for(blocks, grain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t from = b * block, width = std::min(block, count - from);
      T *p = parameter + from, *m = first + from, *v = second + from;
      const T *g = gradient + from, *size = sizes.data();
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) {
        m[i] = b1 * m[i] + a1 * g[i];
        v[i] = b2 * v[i] + a2 * g[i] * g[i];
        p[i] -= size[i] * m[i] / (std::sqrt(v[i]) * root + epsilon);
      }
    }
  });
}

template void adam(float*, const float*, float*, float*, const float*, int64_t, int64_t,
                   const AdamStep&, int);
template void adam(double*, const double*, double*, double*, const double*, int64_t, int64_t,
                   const AdamStep&, int);

}  // namespace refer
