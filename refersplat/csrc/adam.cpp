// One step of Adam for rows whose columns have learning rates of their own: one pass over memory,
// which is what an optimiser's step costs.
#include <algorithm>
#include <cmath>
#include <vector>

#include "op.h"
#include "parallel.h"

namespace refer {
namespace {

constexpr int64_t kRowsAtOnce = 16;  // their rates stand side by side, so that vectors are full
constexpr int64_t kGrain = 1 << 14;  // numbers

// Updates `parameter`, `first` and `second`, all [N, D] like `gradient`; `rates` is [D]. Steps
// count from 1.
template <typename T>
void adam(Array<T> parameter, Array<const T> gradient, Array<T> first, Array<T> second,
          Array<const T> rates, double beta1, double beta2, double epsilon64, int64_t step,
          int threads) {
  const T b1 = beta1, b2 = beta2, epsilon = epsilon64;
  const T a1 = 1 - beta1, a2 = 1 - beta2;
  const double unbias = 1 / (1 - std::pow(beta1, step));
  const T root = 1 / std::sqrt(1 - std::pow(beta2, step));
  const int64_t columns = rates.size(), count = parameter.size();
  std::vector<T> sizes(kRowsAtOnce * columns);
  for (size_t i = 0; i < sizes.size(); ++i) sizes[i] = rates[i % columns] * unbias;

  const int64_t block = static_cast<int64_t>(sizes.size());
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

REFER_OP(adam, adam, float, double)

}  // namespace
}  // namespace refer
