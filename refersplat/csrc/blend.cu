// The blend matrix of a frozen view: built in two passes, and its products. A warp has two rows of
// its tile, as the matrix has.
#define PATCH_WIDTH 16
#include "channels.h"
#include "rows.h"

namespace refer {

__device__ inline void clear_masks(Rows& rows) {
  for (int i = int(threadIdx.x); i < kBatch * kTile; i += kThreads)
    rows.masks[i / kTile][i % kTile] = 0;
}

__device__ inline void note(Rows& rows, int i, bool has_weight) {
  const unsigned pixels = __ballot_sync(kAllLanes, has_weight);
  if (lane_of_thread() == 0) {
    rows.masks[i][2 * warp_of_thread()] = uint16_t(pixels & 0xffff);
    rows.masks[i][2 * warp_of_thread() + 1] = uint16_t(pixels >> kTile);
  }
}

// Rows with any weight of the batch's Gaussian i.
__device__ inline int count_rows(const Rows& rows, int i) {
  int count = 0;
  for (int y = 0; y < kTile; ++y) count += rows.masks[i][y] != 0;
  return count;
}

// counts [tiles, 3]: each tile's groups, rows and weights.
extern "C" __global__ void __launch_bounds__(kThreads)
    count_weights(const REAL* records, const int32_t* gaussians, const int64_t* starts,
                  int64_t width, int64_t height, int64_t* counts, REAL* transmittance) {
  __shared__ Batch<Record> batch;
  __shared__ Rows rows;
  const Pixel pixel{int(width), int(height)};
  Blending state(pixel);
  int64_t num_groups = 0, num_rows = 0, num_weights = 0;
  walk(
      batch, records, gaussians, starts, pixel, state.is_finished,
      [&](int64_t, int) { clear_masks(rows); },
      [&](int i) { note(rows, i, state.weight(batch.records[i], pixel) != 0); },
      [&](int count) {
        __syncthreads();
        const int i = int(threadIdx.x);
        if (i >= count) return;
        const int own = count_rows(rows, i);
        num_groups += own > 0;
        num_rows += own;
        for (int y = 0; y < kTile; ++y) num_weights += __popc(rows.masks[i][y]);
      });
  __syncthreads();
  int64_t all[3];
  block_scan(num_groups, rows.totals, all[0]);
  block_scan(num_rows, rows.totals, all[1]);
  block_scan(num_weights, rows.totals, all[2]);
  for (int i = 0; i < 3; ++i) {
    if (threadIdx.x == 0) counts[3 * int64_t(blockIdx.x) + i] = all[i];
  }
  if (pixel.is_inside) transmittance[pixel.offset] = state.open;
}

// firsts [tiles, 3]: each tile's first group, row and weight. group_rows [groups + 1] is written
// from its second number on.
extern "C" __global__ void __launch_bounds__(kThreads)
    write_weights(const REAL* records, const int32_t* gaussians, const int64_t* starts,
                  int64_t width, int64_t height, const int64_t* firsts, int32_t* group_gaussians,
                  int32_t* group_rows, int32_t* row_words, REAL* weights) {
  __shared__ Batch<Record> batch;
  __shared__ Rows rows;
  const Pixel pixel{int(width), int(height)};
  Blending state(pixel);
  Blending before = state;
  const int64_t* const first = firsts + 3 * int64_t(blockIdx.x);
  int64_t group = first[0], row = first[1], weight = first[2];
  walk(
      batch, records, gaussians, starts, pixel, state.is_finished,
      [&](int64_t, int) {
        clear_masks(rows);
        before = state;
      },
      [&](int i) { note(rows, i, state.weight(batch.records[i], pixel) != 0); },
      [&](int count) {
        __syncthreads();
        const int i = int(threadIdx.x), own = i < count ? count_rows(rows, i) : 0;
        int64_t all_groups, all_rows;
        const int64_t own_group = group + block_scan(own > 0, rows.totals, all_groups);
        int64_t own_row = row + block_scan(own, rows.totals, all_rows);
        const int all_weights = find_offsets(rows, count);
        if (own > 0) {
          group_gaussians[own_group] = batch.gaussians[i];
          for (int y = 0; y < kTile; ++y) {
            const int mask = rows.masks[i][y];
            if (mask != 0) row_words[own_row++] = mask | y << kRowShift;
          }
          group_rows[own_group + 1] = int32_t(own_row);
        }
        const int x = lane_of_thread() % kTile;
        const int y = 2 * warp_of_thread() + lane_of_thread() / kTile;
        visit_batch(batch, count, before.is_finished, [&](int j) {
          const REAL value = before.weight(batch.records[j], pixel);
          if (value != 0) weights[weight + rows.offsets[j][y] + rank(rows.masks[j][y], x)] = value;
        });
        group += all_groups, row += all_rows, weight += all_weights;
      });
}

// The stored arrays of a view; see BlendMatrix.
struct Matrix {
  const int64_t *tile_groups, *tile_weights;
  const int32_t *gaussians, *group_rows, *row_words;
  const REAL* weights;
};

// Calls visit(first group, count, first weight) for batches of the tile's groups, whose rows are
// loaded then. Called by the whole block.
template <typename Visit>
__device__ void walk_groups(const Matrix& m, Rows& rows, Visit visit) {
  const int64_t end = m.tile_groups[blockIdx.x + 1];
  int64_t weight = m.tile_weights[blockIdx.x];
  for (int64_t first = m.tile_groups[blockIdx.x]; first < end; first += kBatch) {
    const int count = end - first < kBatch ? int(end - first) : kBatch, i = int(threadIdx.x);
    __syncthreads();
    if (i < count) {
      for (int y = 0; y < kTile; ++y) rows.masks[i][y] = 0;
      for (int32_t r = m.group_rows[first + i]; r < m.group_rows[first + i + 1]; ++r) {
        rows.masks[i][m.row_words[r] >> kRowShift] = uint16_t(m.row_words[r] & 0xffff);
      }
    }
    const int all = find_offsets(rows, count);
    visit(first, count, weight);
    weight += all;
  }
}

// image [C, H, W] = matrix times values [N, C].
extern "C" __global__ void __launch_bounds__(kThreads)
    product(const int64_t* tile_groups, const int64_t* tile_weights, const int32_t* gaussians,
            const int32_t* group_rows, const int32_t* row_words, const REAL* weights,
            const REAL* values, int64_t num_channels, int64_t width, int64_t height, REAL* image) {
  __shared__ Rows rows;
  __shared__ REAL shared_values[kBatch * CHANNELS];
  const Matrix matrix{tile_groups, tile_weights, gaussians, group_rows, row_words, weights};
  const Channels channels(num_channels);
  const Pixel pixel{int(width), int(height)};
  const int x = pixel.x - pixel.x0, y = pixel.y - pixel.y0;
  REAL sums[CHANNELS] = {};
  walk_groups(matrix, rows, [&](int64_t first, int count, int64_t weight) {
    load_values(shared_values, CHANNELS, values, gaussians + first, count, channels);
    __syncthreads();
    for (int base = 0; base < count; base += kWarp) {
      // Each half of the warp has a row of its own to go through.
      const int i = base + lane_of_thread(), pair = y & ~1;
      const unsigned upper = __ballot_sync(kAllLanes, i < count && rows.masks[i][pair]);
      const unsigned lower = __ballot_sync(kAllLanes, i < count && rows.masks[i][pair + 1]);
      for (unsigned todo = y & 1 ? lower : upper; todo; todo &= todo - 1) {
        const int j = base + __ffs(todo) - 1;
        const unsigned mask = rows.masks[j][y];
        if (!(mask >> x & 1)) continue;
        const REAL share = weights[weight + rows.offsets[j][y] + rank(mask, x)];
        const REAL* const value = shared_values + j * CHANNELS;
#pragma unroll
        for (int k = 0; k < CHANNELS; ++k) sums[k] += share * value[k];
      }
    }
  });
  if (!pixel.is_inside) return;
  REAL* const to = image + channels.first * width * height + pixel.offset;
#pragma unroll
  for (int k = 0; k < CHANNELS; ++k) {
    if (k < channels.count) to[k * width * height] = sums[k];
  }
}

// Adds the transposed matrix times grad_image [C, H, W] to grad_values [N, C]; ORDERED, each group
// has a row of its own, [parts, groups, CHANNELS].
extern "C" __global__ void __launch_bounds__(kThreads)
    transposed_product(const int64_t* tile_groups, const int64_t* tile_weights,
                       const int32_t* gaussians, const int32_t* group_rows,
                       const int32_t* row_words, const REAL* weights, const REAL* grad_image,
                       int64_t num_channels, int64_t width, int64_t height, REAL* grad_values) {
  __shared__ Rows rows;
  __shared__ REAL grads[CHANNELS][kThreads];
  const Matrix matrix{tile_groups, tile_weights, gaussians, group_rows, row_words, weights};
  const Channels channels(num_channels);
  const Pixel pixel{int(width), int(height)};
  const int64_t from = channels.first * width * height + pixel.offset;
  for (int k = 0; k < CHANNELS; ++k) {
    const bool is_there = pixel.is_inside && k < channels.count;
    grads[k][threadIdx.x] = is_there ? grad_image[from + k * width * height] : REAL(0);
  }
  const int lane = lane_of_thread(), x = lane % kTile;
  walk_groups(matrix, rows, [&](int64_t first, int count, int64_t weight) {
    for (int i = warp_of_thread(); i < count; i += kThreads / kWarp) {
      REAL sums[kPaddedChannels] = {};
      for (int y = lane / kTile; y < kTile; y += 2) {
        const unsigned mask = rows.masks[i][y];
        if (!(mask >> x & 1)) continue;
        const REAL share = weights[weight + rows.offsets[i][y] + rank(mask, x)];
#pragma unroll
        for (int k = 0; k < CHANNELS; ++k) sums[k] += share * grads[k][y * kTile + x];
      }
#ifdef ORDERED
      const int64_t row = int64_t(blockIdx.y) * tile_groups[gridDim.x] + first + i;
      REAL* const to = grad_values + row * CHANNELS;
#else
      const int64_t row = gaussians[first + i];
      REAL* const to = grad_values + row * channels.all + channels.first;
#endif
      add_to_row<kPaddedChannels>(sums, to, channels.count);
    }
  });
}

}  // namespace refer
