#include "blend.h"

#include <limits>
#include <stdexcept>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "compositing.h"
#include "parallel.h"

namespace refer {
namespace {

constexpr int kRowShift = 16;
constexpr int kTilesPerPart = 16;

inline int count_bits(uint32_t bits) {
#if defined(__GNUC__)
  return __builtin_popcount(bits);
#else
  int count = 0;
  for (; bits; bits &= bits - 1) ++count;
  return count;
#endif
}

// Writes the lanes that are not zero one after another; returns which they were. May touch the
// kTile places from `to` on.
template <typename T>
uint32_t pack(const Lanes<T>& lanes, T* to) {
  uint32_t mask = 0;
  int used = 0;
  for (int i = 0; i < kTile; ++i) {
    to[used] = lanes[i];
    used += lanes[i] != 0;
    mask |= uint32_t(lanes[i] != 0) << i;
  }
  return mask;
}

// The way back: lanes that are not in the mask become zero. May read up to `end`.
template <typename T>
void unpack(const T* from, const T*, uint32_t mask, Lanes<T>& lanes) {
  lanes = {};
  for (; mask; mask &= mask - 1) lanes[lowest_bit(mask)] = *from++;
}

#ifdef __AVX512F__
template <>
uint32_t pack(const Lanes<float>& lanes, float* to) {
  const __m512 all = _mm512_load_ps(lanes.lane);
  const __mmask16 mask = _mm512_cmp_ps_mask(all, _mm512_setzero_ps(), _CMP_NEQ_UQ);
  _mm512_storeu_ps(to, _mm512_maskz_compress_ps(mask, all));
  return mask;
}

template <>
void unpack(const float* from, const float* end, uint32_t mask, Lanes<float>& lanes) {
  // A load of 16 whole numbers and a shuffle are quicker than a load that knows the mask.
  const __m512 packed = end - from >= kTile ? _mm512_loadu_ps(from)
                                            : _mm512_maskz_loadu_ps((1u << (end - from)) - 1, from);
  _mm512_store_ps(lanes.lane, _mm512_maskz_expand_ps(__mmask16(mask), packed));
}
#endif

// Numbers that are appended without a check for room at each.
template <typename V>
struct Buffer {
  std::vector<V> memory;
  size_t used = 0;

  // A place for `count` more numbers, of which some may be kept by adding to `used`.
  V* room(size_t count) {
    if (used + count > memory.size()) memory.resize(std::max(2 * memory.size(), used + count));
    return memory.data() + used;
  }
  void push(V value) { *room(1) = value, ++used; }
  std::vector<V> kept() const { return {memory.begin(), memory.begin() + ptrdiff_t(used)}; }
};

// The groups of some tiles in a row.
template <typename T>
struct Part {
  std::vector<int32_t> gaussians, group_rows, rows;  // group_rows: where each group ends
  std::vector<T> weights;
};

// Reads a tile's rows one after another.
template <typename T>
struct Reader {
  const T* next;
  const T* end;
  Lanes<T> weight;

  Reader(const BlendView<T>& blend, int64_t tile)
      : next(blend.weights + blend.tile_weights[tile]), end(blend.weights + blend.num_weights) {}

  // Returns the row's place in the tile.
  int read(int32_t row) {
    const uint32_t mask = uint32_t(row) & ((1u << kRowShift) - 1);
    unpack(next, end, mask, weight);
    next += count_bits(mask);
    return row >> kRowShift;
  }
};

// sums[k] += weight * grad[k] for all channels.
template <typename T>
inline void add_products(const Lanes<T>& weight, const Lanes<T>* grad, int channels,
                         Lanes<T>* sums) {
  const Lanes<T> w = weight;
  for (int k = 0; k < channels; ++k) {
#pragma omp simd
    for (int i = 0; i < kTile; ++i) sums[k][i] += w[i] * grad[k][i];
  }
}

}  // namespace

template <typename T>
Blend<T> blend_weights(const Splats<T>& splats, int threads, T* transmittance) {
  const TileLists<T> lists = make_tile_lists(splats, threads);
  const int tiles_x = tiles_along(splats.width);
  const int64_t tiles = int64_t(tiles_x) * tiles_along(splats.height);
  const int64_t num_parts = (tiles + kTilesPerPart - 1) / kTilesPerPart;
  std::vector<Part<T>> parts(num_parts);
  Blend<T> blend;
  blend.tile_groups.assign(tiles + 1, 0);
  blend.tile_weights.assign(tiles + 1, 0);
  parallel_for(tiles, kTilesPerPart, threads, [&](int64_t begin, int64_t end) {
    Buffer<int32_t> gaussians, group_rows, row_masks;
    Buffer<T> weights;
    Row<T> rows[kTile];
    Lanes<T> weight;
    for (int64_t tile = begin; tile < end; ++tile) {
      const Window w(tile, tiles_x, splats.height, splats.width);
      walk(lists.view(), tile, w, rows, [&](const Candidate<T>& c, const Footprint<T>& f) {
        T* const first = weights.room(kTile * kTile);
        T* next = first;
        int32_t* const masks = row_masks.room(kTile);
        int used = 0;
        for (uint32_t bits = f.rows; bits; bits &= bits - 1) {
          const int y = lowest_bit(bits);
          blend_row(c, f, c.v - T(w.y0 + y), rows[y], weight, nullptr);
          const uint32_t mask = pack(weight, next);
          next += count_bits(mask);
          masks[used] = int32_t(mask | uint32_t(y) << kRowShift);
          used += mask != 0;
        }
        if (used == 0) return;
        weights.used += size_t(next - first);
        row_masks.used += size_t(used);
        gaussians.push(c.gaussian);
        group_rows.push(int32_t(row_masks.used));
      });
      // Within its part, as yet.
      blend.tile_groups[tile + 1] = int64_t(gaussians.used);
      blend.tile_weights[tile + 1] = int64_t(weights.used);
      for (int y = 0; y < w.rows; ++y) {
        const int64_t to = w.offset(y, splats.width);
        write_transmittance(rows[y], w.columns, transmittance + to);
      }
    }
    parts[begin / kTilesPerPart] = {gaussians.kept(), group_rows.kept(), row_masks.kept(),
                                    weights.kept()};
  });

  int64_t groups = 0, rows = 0, weights = 0;
  std::vector<int64_t> first_rows;
  for (int64_t p = 0; p < num_parts; ++p) {
    const int64_t last = std::min<int64_t>(tiles, (p + 1) * kTilesPerPart);
    for (int64_t tile = p * kTilesPerPart; tile < last; ++tile) {
      blend.tile_groups[tile + 1] += groups;
      blend.tile_weights[tile + 1] += weights;
    }
    first_rows.push_back(rows);
    groups += int64_t(parts[p].gaussians.size());
    rows += int64_t(parts[p].rows.size());
    weights += int64_t(parts[p].weights.size());
  }
  if (rows > std::numeric_limits<int32_t>::max()) {
    throw std::length_error("a blend matrix holds at most 2^31 rows of pixels");
  }
  blend.gaussians = Memory<int32_t>(groups);
  blend.group_rows = Memory<int32_t>(groups + 1);
  blend.rows = Memory<int32_t>(rows);
  blend.weights = Memory<T>(weights);
  blend.group_rows.data[0] = 0;
  parallel_for(num_parts, 1, threads, [&](int64_t p, int64_t) {
    const Part<T> part = std::move(parts[p]);
    const int64_t group = blend.tile_groups[p * kTilesPerPart];
    const int64_t weight = blend.tile_weights[p * kTilesPerPart];
    std::copy(part.gaussians.begin(), part.gaussians.end(), blend.gaussians.data.get() + group);
    std::copy(part.rows.begin(), part.rows.end(), blend.rows.data.get() + first_rows[p]);
    std::copy(part.weights.begin(), part.weights.end(), blend.weights.data.get() + weight);
    std::transform(part.group_rows.begin(), part.group_rows.end(),
                   blend.group_rows.data.get() + group + 1,
                   [&](int32_t end) { return end + int32_t(first_rows[p]); });
  });
  return blend;
}

template <typename T>
void blend_product(const BlendView<T>& blend, const T* values, int channels, int threads,
                   T* image) {
  const int tiles_x = tiles_along(blend.width);
  const int64_t plane = int64_t(blend.height) * blend.width;
  with_channels<T>(channels, [&](auto fixed) {
    const int C = decltype(fixed)::value ? decltype(fixed)::value : channels;
    parallel_for(blend.tiles, 4, threads, [&](int64_t begin, int64_t end) {
      std::vector<Lanes<T>> sums(size_t(kTile) * C);  // [rows, C]
      for (int64_t tile = begin; tile < end; ++tile) {
        const Window w(tile, tiles_x, blend.height, blend.width);
        std::fill(sums.begin(), sums.end(), Lanes<T>());
        Reader<T> reader(blend, tile);
        for (int64_t g = blend.tile_groups[tile]; g < blend.tile_groups[tile + 1]; ++g) {
          const T* const value = values + int64_t(blend.gaussians[g]) * C;
          for (int32_t r = blend.group_rows[g]; r < blend.group_rows[g + 1]; ++r) {
            const int y = reader.read(blend.rows[r]);
            add_weighted(reader.weight, value, C, &sums[size_t(y) * C]);
          }
        }
        for (int y = 0; y < w.rows; ++y) {
          T* const to = image + w.offset(y, blend.width);
          for (int k = 0; k < C; ++k) {
            std::copy_n(sums[size_t(y) * C + k].lane, w.columns, to + k * plane);
          }
        }
      }
    });
  });
}

template <typename T>
void blend_transposed_product(const BlendView<T>& blend, const T* grad_image, int64_t count,
                              int channels, int threads, T* grad_values) {
  const int tiles_x = tiles_along(blend.width);
  const int64_t plane = int64_t(blend.height) * blend.width;
  // A group's sums go to its own place first, and are added in order: the number of threads does
  // not change the result.
  std::vector<T> sums(size_t(blend.groups) * channels);
  with_channels<T>(channels, [&](auto fixed) {
    const int C = decltype(fixed)::value ? decltype(fixed)::value : channels;
    parallel_for(blend.tiles, 4, threads, [&](int64_t begin, int64_t end) {
      std::vector<Lanes<T>> grads(size_t(kTile) * C), lanes(C);  // [rows, C], [C]
      for (int64_t tile = begin; tile < end; ++tile) {
        const Window w(tile, tiles_x, blend.height, blend.width);
        if (w.columns < kTile) std::fill(grads.begin(), grads.end(), Lanes<T>());
        for (int y = 0; y < w.rows; ++y) {
          const T* const from = grad_image + w.offset(y, blend.width);
          for (int k = 0; k < C; ++k) {
            std::copy_n(from + k * plane, w.columns, grads[size_t(y) * C + k].lane);
          }
        }
        Reader<T> reader(blend, tile);
        for (int64_t g = blend.tile_groups[tile]; g < blend.tile_groups[tile + 1]; ++g) {
          std::fill(lanes.begin(), lanes.end(), Lanes<T>());
          for (int32_t r = blend.group_rows[g]; r < blend.group_rows[g + 1]; ++r) {
            const int y = reader.read(blend.rows[r]);
            add_products(reader.weight, &grads[size_t(y) * C], C, lanes.data());
          }
          for (int k = 0; k < C; ++k) sums[g * C + k] = sum(lanes[k]);
        }
      }
    });
  });
  std::fill_n(grad_values, count * channels, T(0));
  for (int64_t g = 0; g < blend.groups; ++g) {
    T* const into = grad_values + int64_t(blend.gaussians[g]) * channels;
    for (int k = 0; k < channels; ++k) into[k] += sums[g * channels + k];
  }
}

#define REFER_INSTANTIATE(T)                                                \
  template Blend<T> blend_weights(const Splats<T>&, int, T*);               \
  template void blend_product(const BlendView<T>&, const T*, int, int, T*); \
  template void blend_transposed_product(const BlendView<T>&, const T*, int64_t, int, int, T*);
REFER_INSTANTIATE(float)
REFER_INSTANTIATE(double)

}  // namespace refer
