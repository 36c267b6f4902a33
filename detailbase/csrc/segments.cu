// Sums and maxima of rows that belong together: a thread for each segment and channel goes through
// the segment's rows in their order.
#include "device.h"

#ifndef REAL
#define REAL float
#endif

namespace refer {

// order [N]: the rows, segment by segment, each segment's from starts[s] on.
extern "C" __global__ void segment_sum(const REAL* values, const int64_t* order,
                                       const int64_t* starts, int64_t channels, int64_t size,
                                       REAL* out) {
  const int64_t i = global_thread();
  if (i >= size) return;
  const int64_t segment = i / channels, channel = i % channels;
  REAL sum = 0;
  for (int64_t r = starts[segment]; r < starts[segment + 1]; ++r) {
    sum += values[order[r] * channels + channel];
  }
  out[i] = sum;
}

// The first of equal values counts, a NaN before all; 0 and row -1 where there is none.
extern "C" __global__ void segment_max(const REAL* values, const int64_t* order,
                                       const int64_t* starts, int64_t channels, int64_t size,
                                       REAL* out, int64_t* rows) {
  const int64_t i = global_thread();
  if (i >= size) return;
  const int64_t segment = i / channels, channel = i % channels;
  REAL largest = 0;
  int64_t row = -1;
  for (int64_t r = starts[segment]; r < starts[segment + 1]; ++r) {
    const REAL value = values[order[r] * channels + channel];
    const bool is_first_nan = value != value && largest == largest;
    if (row < 0 || is_first_nan || value > largest) {
      largest = value;
      row = order[r];
    }
  }
  out[i] = largest;
  rows[i] = row;
}

}  // namespace refer
