// A step of Adam: one pass over memory, which is what it costs.
#include "device.h"

#ifndef REAL
#define REAL float
#endif

namespace refer {

// parameter, gradient and moments are [N, D], rates [D]; unbias and root take the biases out of the
// first and the second moment.
extern "C" __global__ void adam(REAL* parameter, const REAL* gradient, REAL* first, REAL* second,
                                const REAL* rates, int64_t columns, int64_t count, double beta1,
                                double beta2, double epsilon, double unbias, double root) {
  const int64_t i = global_thread();
  if (i >= count) return;
  const REAL g = gradient[i];
  const REAL m = REAL(beta1) * first[i] + REAL(1 - beta1) * g;
  const REAL v = REAL(beta2) * second[i] + REAL(1 - beta2) * g * g;
  first[i] = m, second[i] = v;
  const REAL size = rates[i % columns] * REAL(unbias);
  parameter[i] -= size * m / (sqrt(v) * REAL(root) + REAL(epsilon));
}

}  // namespace refer
