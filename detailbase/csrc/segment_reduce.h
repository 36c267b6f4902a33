// Sums and maxima of rows that belong together.
#pragma once

#include <cstdint>

namespace refer {

// out [S, C]: the sum of the rows of values [N, C] of each segment, in the order of the rows.
template <typename T>
void segment_sum(const T* values, const int64_t* segments, int64_t rows, int64_t channels,
                 int64_t count, int threads, T* out);

// out [S, C]: the largest value of each segment, and its row [S, C]: the first of equal ones, a NaN
// before all. A segment without rows has 0 and row -1.
template <typename T>
void segment_max(const T* values, const int64_t* segments, int64_t rows, int64_t channels,
                 int64_t count, int threads, T* out, int64_t* largest);

}  // namespace refer
