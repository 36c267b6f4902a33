// Sums and maxima of rows that belong together.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "op.h"
#include "parallel.h"

namespace refer {
namespace {

// The rows of each segment, in order: those of segment s are rows[starts[s]] .. rows[starts[s +
// 1]].
struct Members {
  Members(const int64_t* segments, int64_t count_rows, int64_t count)
      : starts(count + 1), rows(count_rows) {
    for (int64_t i = 0; i < count_rows; ++i) {
      if (segments[i] < 0 || segments[i] >= count) {
        throw std::invalid_argument("segments must lie in 0.." + std::to_string(count - 1) +
                                    ", row " + std::to_string(i) + " is " +
                                    std::to_string(segments[i]));
      }
      ++starts[segments[i] + 1];
    }
    for (int64_t s = 0; s < count; ++s) starts[s + 1] += starts[s];
    std::vector<int64_t> next(starts.begin(), starts.end() - 1);
    for (int64_t i = 0; i < count_rows; ++i) rows[next[segments[i]]++] = i;
  }

  std::vector<int64_t> starts, rows;
};

// About this many values are enough for a thread to take.
int64_t segments_at_once(int64_t rows, int64_t channels, int64_t count) {
  return std::max<int64_t>(1, (1 << 14) * count / std::max<int64_t>(1, rows * channels));
}

// out [S, C]: the sum of the rows of values [N, C] of each segment, in the order of the rows.
template <typename T>
void segment_sum(Array<const T> values, Array<const int64_t> segments, int threads, Array<T> out) {
  const int64_t rows = values.shape(0), channels = values.shape(1), count = out.shape(0);
  const Members members(segments, rows, count);
  parallel_for(count, segments_at_once(rows, channels, count), threads,
               [&](int64_t begin, int64_t end) {
                 for (int64_t s = begin; s < end; ++s) {
                   T* sum = out + s * channels;
                   std::fill_n(sum, channels, T(0));
                   for (int64_t i = members.starts[s]; i < members.starts[s + 1]; ++i) {
                     const T* row = values + members.rows[i] * channels;
                     for (int64_t c = 0; c < channels; ++c) sum[c] += row[c];
                   }
                 }
               });
}

// out [S, C]: the largest value of each segment, and its row [S, C]: the first of equal ones, a NaN
// before all. A segment without rows has 0 and row -1.
template <typename T>
void segment_max(Array<const T> values, Array<const int64_t> segments, int threads, Array<T> out,
                 Array<int64_t> largest) {
  const int64_t rows = values.shape(0), channels = values.shape(1), count = out.shape(0);
  const Members members(segments, rows, count);
  parallel_for(count, segments_at_once(rows, channels, count), threads,
               [&](int64_t begin, int64_t end) {
                 for (int64_t s = begin; s < end; ++s) {
                   T* best = out + s * channels;
                   int64_t* best_row = largest + s * channels;
                   std::fill_n(best, channels, T(0));
                   std::fill_n(best_row, channels, int64_t{-1});
                   for (int64_t i = members.starts[s]; i < members.starts[s + 1]; ++i) {
                     const T* row = values + members.rows[i] * channels;
                     for (int64_t c = 0; c < channels; ++c) {
                       const bool is_first_nan = row[c] != row[c] && best[c] == best[c];
                       if (best_row[c] < 0 || row[c] > best[c] || is_first_nan) {
                         best[c] = row[c];
                         best_row[c] = members.rows[i];
                       }
                     }
                   }
                 }
               });
}

REFER_OP(segment_sum, segment_sum, float, double)
REFER_OP(segment_max, segment_max, float, double)

}  // namespace
}  // namespace refer
