// A tile's Gaussians, batch by batch, as the warps of a block go through them: their records, or
// what is made of these and more. A warp has a patch of the tile's 16 x 16 pixels, and skips the
// Gaussians that reach none of them.
#pragma once

#include "blending.h"
#include "device.h"
#include "record.h"

#ifndef PATCH_WIDTH
#define PATCH_WIDTH 8
#endif
// Gaussians that a block goes through at once.
#ifndef BATCH
#define BATCH 128
#endif

namespace refer {

constexpr int kThreads = kTile * kTile;
constexpr int kBatch = BATCH;
constexpr int kPatchWidth = PATCH_WIDTH, kPatchHeight = kWarp / PATCH_WIDTH;
constexpr int kPatches = kThreads / kWarp, kPatchesAcross = kTile / kPatchWidth;

template <typename Entry>
struct Batch {
  Entry records[kBatch];  // see to_exponent
  int32_t gaussians[kBatch];
  uint8_t reached[kBatch];  // a bit for each patch
};

// The thread's pixel.
struct Pixel {
  int x0, y0, x, y;  // of the tile, of the pixel
  bool is_inside;
  int64_t offset;

  __device__ Pixel(int width, int height) {
    const int tiles_x = (width + kTile - 1) / kTile, tile = static_cast<int>(blockIdx.x);
    const int patch = warp_of_thread(), lane = lane_of_thread();
    x0 = tile % tiles_x * kTile, y0 = tile / tiles_x * kTile;
    x = x0 + patch % kPatchesAcross * kPatchWidth + lane % kPatchWidth;
    y = y0 + patch / kPatchesAcross * kPatchHeight + lane / kPatchWidth;
    is_inside = x < width && y < height;
    offset = static_cast<int64_t>(y) * width + x;
  }
};

// The record with a form that is the exponent of 2 as it stands, instead of twice that of 1 / e.
__device__ inline Record to_exponent(Record record) {
  const REAL scale = REAL(-1.4426950408889634);  // log2(e)
  record.xx *= scale / 2, record.xy *= scale, record.yy *= scale / 2;
  return record;
}

// A Gaussian of a batch at a pixel.
struct Touch {
  REAL dx, dy, alpha;  // alpha is 0 below 1/255

  __device__ Touch(const Record& r, const Pixel& p) : dx(r.u - p.x), dy(r.v - p.y) {
    // Written out, so that every kernel rounds alike: one counts what another writes.
    const REAL power = fma(dx, fma(r.xx, dx, r.xy * dy), r.yy * dy * dy);
    alpha = limited_alpha(r.opacity * quick_exp2(power));
  }
};

// A pixel while the Gaussians go by.
struct Blending {
  REAL open = 1;
  bool is_finished;

  __device__ explicit Blending(const Pixel& pixel) : is_finished(!pixel.is_inside) {}

  // The Gaussian's weight, 0 where there is none.
  __device__ REAL weight(const Record& record, const Pixel& pixel) {
    const Touch touch(record, pixel);
    if (is_finished || touch.alpha == 0) return 0;
    const REAL after = open * (1 - touch.alpha);
    is_finished = !stays_open(after);
    if (is_finished) return 0;
    const REAL weight = open * touch.alpha;
    open = after;
    return weight;
  }
};

template <typename Entry>
__device__ void load_batch(Batch<Entry>& batch, const Record* records, const int32_t* gaussians,
                           int count, const Pixel& pixel) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= count) return;
  const Record record = records[gaussians[i]];
  int reached = 0;
  for (int patch = 0; patch < kPatches; ++patch) {
    const REAL left = REAL(pixel.x0 + patch % kPatchesAcross * kPatchWidth);
    const REAL top = REAL(pixel.y0 + patch / kPatchesAcross * kPatchHeight);
    reached |=
        int(reaches_box(record, left, top, left + (kPatchWidth - 1), top + (kPatchHeight - 1)))
        << patch;
  }
  static_cast<Record&>(batch.records[i]) = to_exponent(record);
  batch.gaussians[i] = gaussians[i];
  batch.reached[i] = static_cast<uint8_t>(reached);
}

// Calls visit(i), in whole warps, for the batch's Gaussians that reach the warp's patch.
template <typename Entry, typename Visit>
__device__ void visit_batch(const Batch<Entry>& batch, int count, const bool& is_finished,
                            Visit visit) {
  for (int base = 0; base < count; base += kWarp) {
    if (__all_sync(kAllLanes, is_finished)) return;
    const int i = base + lane_of_thread();
    unsigned todo =
        __ballot_sync(kAllLanes, i < count && (batch.reached[i] >> warp_of_thread() & 1));
    for (; todo; todo &= todo - 1) visit(base + __ffs(todo) - 1);
  }
}

// Walks through the tile's Gaussians, nearest first, until the pixels of all threads are finished.
// `load(first, count)` brings what else a batch needs; `visit(i)` is called by whole warps with
// rows of the batch; `leave(count)` when the warp is through with it.
template <typename Entry, typename Load, typename Visit, typename Leave>
__device__ void walk(Batch<Entry>& batch, const REAL* records, const int32_t* gaussians,
                     const int64_t* starts, const Pixel& pixel, const bool& is_finished, Load load,
                     Visit visit, Leave leave) {
  const int64_t end = starts[blockIdx.x + 1];
  for (int64_t first = starts[blockIdx.x]; first < end; first += kBatch) {
    if (__syncthreads_count(!is_finished) == 0) return;
    const int count = end - first < kBatch ? static_cast<int>(end - first) : kBatch;
    load_batch(batch, reinterpret_cast<const Record*>(records), gaussians + first, count, pixel);
    load(first, count);
    __syncthreads();
    visit_batch(batch, count, is_finished, visit);
    leave(count);
  }
}

struct Nothing {
  __device__ void operator()(int) const {}
};

}  // namespace refer
