#include "tiles.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "op.h"
#include "parallel.h"

namespace refer {
namespace {

// Sorts rows by depth > 0, stably: a radix sort of the bits, which are ordered as the numbers are.
template <typename T>
std::vector<int32_t> order_by_depth(const std::vector<int32_t>& rows, const T* depths) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  constexpr int kDigit = 11, kBuckets = 1 << kDigit;
  const size_t count = rows.size();
  std::vector<Bits> keys(count), sorted_keys(count);
  std::vector<int32_t> order(rows), sorted(count);
  Bits all_or = 0, all_and = ~Bits(0);
  for (size_t i = 0; i < count; ++i) {
    std::memcpy(&keys[i], &depths[rows[i]], sizeof(T));
    all_or |= keys[i];
    all_and &= keys[i];
  }
  for (int shift = 0; shift < int(8 * sizeof(T)); shift += kDigit) {
    if (((all_or ^ all_and) >> shift & (kBuckets - 1)) == 0) continue;  // all the same here
    int64_t positions[kBuckets] = {};
    for (size_t i = 0; i < count; ++i) ++positions[keys[i] >> shift & (kBuckets - 1)];
    int64_t total = 0;
    for (int64_t& position : positions) {
      const int64_t here = position;
      position = total;
      total += here;
    }
    for (size_t i = 0; i < count; ++i) {
      const int64_t to = positions[keys[i] >> shift & (kBuckets - 1)]++;
      sorted_keys[to] = keys[i];
      sorted[to] = order[i];
    }
    keys.swap(sorted_keys);
    order.swap(sorted);
  }
  return order;
}

}  // namespace

template <typename T>
TileLists<T> make_tile_lists(const Splats<T>& splats, int threads) {
  TileLists<T> lists;
  const int tiles_x = tiles_along(splats.width), tiles_y = tiles_along(splats.height);

  constexpr int64_t kGrain = 4096;
  std::vector<Candidate<T>> found(splats.count);
  std::vector<uint8_t> seen(splats.count);
  parallel_for(splats.count, kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      found[i].gaussian = int32_t(i);
      seen[i] = find_rectangle(splats.means2d + 2 * i, splats.conics + 3 * i, splats.depths[i],
                               splats.opacities[i], splats.width, splats.height,
                               static_cast<Ellipse<T>&>(found[i]), found[i]);
    }
  });
  std::vector<int32_t> rows;
  rows.reserve(splats.count);
  for (int64_t i = 0; i < splats.count; ++i) {
    if (seen[i]) rows.push_back(int32_t(i));
  }
  const std::vector<int32_t> order = order_by_depth(rows, splats.depths);
  lists.candidates.resize(order.size());
  int64_t slots = 0;
  for (size_t k = 0; k < order.size(); ++k) {
    Candidate<T>& candidate = lists.candidates[k] = found[order[k]];
    candidate.first_slot = slots;
    slots += int64_t(candidate.tiles_x) * candidate.tiles_y;
  }

  // Each band of tile rows is filled by one thread, in order: the lists come out sorted.
  const int bands = std::max(1, std::min(threads, tiles_y));
  std::vector<int64_t>& starts = lists.starts;
  starts.assign(int64_t(tiles_x) * tiles_y + 2, 0);
  const auto visit = [&](const auto& each) {
    parallel_for(bands, 1, threads, [&](int64_t band, int64_t) {
      const int first = int(tiles_y * band / bands);
      const int last = int(tiles_y * (band + 1) / bands);
      for (size_t k = 0; k < lists.candidates.size(); ++k) {
        const Candidate<T>& c = lists.candidates[k];
        const int bottom = std::min(last, c.tile_y + c.tiles_y);
        for (int y = std::max(first, c.tile_y); y < bottom; ++y) {
          for (int x = c.tile_x; x < c.tile_x + c.tiles_x; ++x) {
            each(int64_t(y) * tiles_x + x, int32_t(k));
          }
        }
      }
    });
  };
  visit([&](int64_t tile, int32_t) { ++starts[tile + 2]; });
  for (size_t i = 1; i < starts.size(); ++i) starts[i] += starts[i - 1];
  lists.entries.resize(starts.back());
  visit([&](int64_t tile, int32_t k) { lists.entries[starts[tile + 1]++] = k; });
  starts.pop_back();
  return lists;
}

// Candidates (as rows of T), entries and starts.
template <typename T>
Results tile_lists(Array<const T> means2d, Array<const T> conics, Array<const T> depths,
                   Array<const T> opacities, int height, int width, int threads) {
  TileLists<T> lists = make_tile_lists<T>(
      {means2d.shape(0), means2d, conics, depths, opacities, height, width}, threads);
  return {result<T>(std::move(lists.candidates)), result<int32_t>(std::move(lists.entries)),
          result<int64_t>(std::move(lists.starts))};
}

REFER_OP(tile_lists, tile_lists, float, double)
template TileLists<float> make_tile_lists(const Splats<float>&, int);
template TileLists<double> make_tile_lists(const Splats<double>&, int);

}  // namespace refer
