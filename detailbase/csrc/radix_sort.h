// A stable sort by whole numbers, in linear time and on all cores.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "parallel.h"

namespace refer {

struct Keyed {
  uint64_t key;
  int64_t row;
};

// Sorts by the low `bits` of the keys, the only ones set. Equal keys keep their order.
inline void radix_sort(std::vector<Keyed>& items, int bits, int threads) {
  constexpr int kDigitBits = 11, kDigits = 1 << kDigitBits;
  const int64_t count = static_cast<int64_t>(items.size());
  const int64_t grain = std::max<int64_t>(1 << 15, (count + threads - 1) / threads);
  const int64_t chunks = (count + grain - 1) / grain;
  std::vector<Keyed> sorted(items.size());
  std::vector<std::array<int64_t, kDigits>> places(chunks);
  for (int shift = 0; shift < bits; shift += kDigitBits) {
    parallel_for(count, grain, threads, [&](int64_t begin, int64_t end) {
      auto& counts = places[begin / grain];
      counts.fill(0);
      for (int64_t i = begin; i < end; ++i) ++counts[items[i].key >> shift & (kDigits - 1)];
    });
    int64_t total = 0;
    for (int digit = 0; digit < kDigits; ++digit) {
      for (auto& counts : places) {
        const int64_t here = counts[digit];
        counts[digit] = total;
        total += here;
      }
    }
    parallel_for(count, grain, threads, [&](int64_t begin, int64_t end) {
      auto& next = places[begin / grain];
      for (int64_t i = begin; i < end; ++i) {
        sorted[next[items[i].key >> shift & (kDigits - 1)]++] = items[i];
      }
    });
    items.swap(sorted);
  }
}

}  // namespace refer
