// The sparse matrix (pixels x Gaussians) with which a view of frozen geometry blends its values.
// Tile by tile, it has one group for each Gaussian that contributes there; of each group, its rows
// of pixels; of each row, which of its 16 pixels the Gaussian contributes to, and their weights one
// after another. Read from the front, nothing else needs to be stored.
#include <limits>
#include <stdexcept>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "compositing.h"
#include "op.h"
#include "parallel.h"

namespace refer {
namespace {

constexpr int kRowShift = 16;  // bits of a row from here on are its place in the tile
constexpr int kTilesPerPart = 16;

// Numbers that are not set to zero first.
template <typename V>
struct Memory {
  std::shared_ptr<V> data;
  int64_t size;
  explicit Memory(int64_t size) : data(new V[size], std::default_delete<V[]>()), size(size) {}
  Result result() const { return {kKind<V>, sizeof(V), size, data.get(), data}; }
};

// The matrix in Python's memory; the groups of tile t are tile_groups[t] .. tile_groups[t + 1], its
// weights, and the rows of a group likewise.
template <typename T>
struct BlendView {
  int height, width;
  int64_t tiles, groups, num_weights;
  const int64_t *tile_groups, *tile_weights;
  const int32_t *gaussians, *group_rows, *rows;
  const T* weights;

  BlendView(Array<const int64_t> tile_groups, Array<const int64_t> tile_weights,
            Array<const int32_t> gaussians, Array<const int32_t> group_rows,
            Array<const int32_t> rows, Array<const T> weights, int64_t height, int64_t width)
      : height(int(height)),
        width(int(width)),
        tiles(tile_groups.size() - 1),
        groups(gaussians.size()),
        num_weights(weights.size()),
        tile_groups(tile_groups),
        tile_weights(tile_weights),
        gaussians(gaussians),
        group_rows(group_rows),
        rows(rows),
        weights(weights) {}
};

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

// Returns the matrix: tile_groups, tile_weights, gaussians, group_rows, rows, weights.
template <typename T>
Results blend_weights(Array<const T> means2d, Array<const T> conics, Array<const T> depths,
                      Array<const T> opacities, int threads, Array<T> transmittance) {
  const Splats<T> splats{
      means2d.shape(0),           means2d, conics, depths, opacities, int(transmittance.shape(0)),
      int(transmittance.shape(1))};
  const TileLists<T> lists = make_tile_lists(splats, threads);
  const int tiles_x = tiles_along(splats.width);
  const int64_t tiles = int64_t(tiles_x) * tiles_along(splats.height);
  const int64_t num_parts = (tiles + kTilesPerPart - 1) / kTilesPerPart;
  std::vector<Part<T>> parts(num_parts);
  std::vector<int64_t> tile_groups(tiles + 1), tile_weights(tiles + 1);
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
      tile_groups[tile + 1] = int64_t(gaussians.used);
      tile_weights[tile + 1] = int64_t(weights.used);
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
      tile_groups[tile + 1] += groups;
      tile_weights[tile + 1] += weights;
    }
    first_rows.push_back(rows);
    groups += int64_t(parts[p].gaussians.size());
    rows += int64_t(parts[p].rows.size());
    weights += int64_t(parts[p].weights.size());
  }
  if (rows > std::numeric_limits<int32_t>::max()) {
    throw std::length_error("a blend matrix holds at most 2^31 rows of pixels");
  }
  const Memory<int32_t> gaussians(groups), group_rows(groups + 1), row_masks(rows);
  const Memory<T> kept_weights(weights);
  group_rows.data.get()[0] = 0;
  parallel_for(num_parts, 1, threads, [&](int64_t p, int64_t) {
    const Part<T> part = std::move(parts[p]);
    const int64_t group = tile_groups[p * kTilesPerPart];
    const int64_t weight = tile_weights[p * kTilesPerPart];
    std::copy(part.gaussians.begin(), part.gaussians.end(), gaussians.data.get() + group);
    std::copy(part.rows.begin(), part.rows.end(), row_masks.data.get() + first_rows[p]);
    std::copy(part.weights.begin(), part.weights.end(), kept_weights.data.get() + weight);
    std::transform(part.group_rows.begin(), part.group_rows.end(),
                   group_rows.data.get() + group + 1,
                   [&](int32_t end) { return end + int32_t(first_rows[p]); });
  });
  return {result<int64_t>(std::move(tile_groups)),
          result<int64_t>(std::move(tile_weights)),
          gaussians.result(),
          group_rows.result(),
          row_masks.result(),
          kept_weights.result()};
}

// image [C, H, W] = blend matrix times values [N, C].
template <typename T>
void blend_product(Array<const int64_t> tile_groups, Array<const int64_t> tile_weights,
                   Array<const int32_t> gaussians, Array<const int32_t> group_rows,
                   Array<const int32_t> rows, Array<const T> weights, Array<const T> values,
                   int threads, Array<T> image) {
  const BlendView<T> blend(tile_groups, tile_weights, gaussians, group_rows, rows, weights,
                           image.shape(1), image.shape(2));
  const int channels = int(values.shape(1));
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

// grad_values [N, C] = transposed blend matrix times grad_image [C, H, W].
template <typename T>
void blend_transposed_product(Array<const int64_t> tile_groups, Array<const int64_t> tile_weights,
                              Array<const int32_t> gaussians, Array<const int32_t> group_rows,
                              Array<const int32_t> rows, Array<const T> weights,
                              Array<const T> grad_image, int threads, Array<T> grad_values) {
  const BlendView<T> blend(tile_groups, tile_weights, gaussians, group_rows, rows, weights,
                           grad_image.shape(1), grad_image.shape(2));
  const int channels = int(grad_image.shape(0));
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
  std::fill_n(grad_values.data, grad_values.size(), T(0));
  for (int64_t g = 0; g < blend.groups; ++g) {
    T* const into = grad_values + int64_t(blend.gaussians[g]) * channels;
    for (int k = 0; k < channels; ++k) into[k] += sums[g * channels + k];
  }
}

REFER_OP(blend_weights, blend_weights, float, double)
REFER_OP(blend_product, blend_product, float, double)
REFER_OP(blend_transposed_product, blend_transposed_product, float, double)

}  // namespace
}  // namespace refer
