// Sums and maxima of rows that belong together.
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
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

// An integer as wide as T: a register holds as many of one as of the other.
template <typename T>
using Place = std::conditional_t<sizeof(T) == sizeof(int32_t), int32_t, int64_t>;

// Takes what is larger in `row` into `best` and its place into `places`; the first of equal numbers
// stays, a NaN comes before all. Without branches, so that many channels are compared at once.
template <typename T>
void take_larger(const T* row, Place<T> place, int64_t channels, T* best, Place<T>* places) {
#pragma omp simd
  for (int64_t c = 0; c < channels; ++c) {
    const bool is_larger = (row[c] > best[c]) | ((row[c] != row[c]) & (best[c] == best[c]));
    best[c] = is_larger ? row[c] : best[c];
    places[c] = is_larger ? place : places[c];
  }
}

// out [S, C]: the largest value of each segment, and its row [S, C]: the first of equal ones, a NaN
// before all. A segment without rows has 0 and row -1.
template <typename T>
void segment_max(Array<const T> values, Array<const int64_t> segments, int threads, Array<T> out,
                 Array<int64_t> largest) {
  const int64_t rows = values.shape(0), channels = values.shape(1), count = out.shape(0);
  if (rows > INT32_MAX) throw std::invalid_argument("values must have fewer than 2^31 rows");
  const Members members(segments, rows, count);
  parallel_for(count, segments_at_once(rows, channels, count), threads,
               [&](int64_t begin, int64_t end) {
                 std::vector<Place<T>> places(channels);
                 for (int64_t s = begin; s < end; ++s) {
                   const int64_t* row = members.rows.data() + members.starts[s];
                   const int64_t size = members.starts[s + 1] - members.starts[s];
                   T* best = out + s * channels;
                   int64_t* best_row = largest + s * channels;
                   if (size == 0) {
                     std::fill_n(best, channels, T(0));
                     std::fill_n(best_row, channels, int64_t{-1});
                     continue;
                   }
                   std::copy_n(values + row[0] * channels, channels, best);
                   std::fill(places.begin(), places.end(), Place<T>(0));
                   for (int64_t i = 1; i < size; ++i) {
                     take_larger(values + row[i] * channels, static_cast<Place<T>>(i), channels,
                                 best, places.data());
                   }
                   for (int64_t c = 0; c < channels; ++c) best_row[c] = row[places[c]];
                 }
               });
}

REFER_OP(segment_sum, segment_sum, float, double)
REFER_OP(segment_max, segment_max, float, double)

}  // namespace
}  // namespace refer
