// Alpha blending: a block for each tile and each CHANNELS of the values, a thread for each pixel.
#ifdef ORDERED  // fewer, of which each patch's sums are kept
#define BATCH (sizeof(REAL) == 8 ? 16 : 32)
#endif
#include "channels.h"
#include "walk.h"

namespace refer {

// As many blocks fit a multiprocessor at once, forward and backward.
constexpr int kBlocks = sizeof(REAL) == 8 ? 1 : CHANNELS <= 8 ? 5 : CHANNELS <= 16 ? 4 : 3;
constexpr int kBlocksBack = kBlocks == 3 ? 2 : kBlocks;
constexpr int kPaddedMoments = padded(kMoments);

// A Gaussian with its values, so that both have one address.
struct Valued : Record {
  REAL values[CHANNELS];
};
constexpr int kStep = sizeof(Valued) / sizeof(REAL);

// image is [C, H, W], transmittance [H, W].
extern "C" __global__ void __launch_bounds__(kThreads, kBlocks)
    blend(const REAL* records, const int32_t* gaussians, const int64_t* starts, const REAL* values,
          int64_t num_channels, int64_t width, int64_t height, REAL* image, REAL* transmittance) {
  __shared__ Batch<Valued> batch;
  const Channels channels(num_channels);
  const Pixel pixel{int(width), int(height)};
  Blending state(pixel);
  REAL sums[CHANNELS] = {};
  walk(
      batch, records, gaussians, starts, pixel, state.is_finished,
      [&](int64_t first, int count) {
        load_values(batch.records[0].values, kStep, values, gaussians + first, count, channels);
      },
      [&](int i) {
        const REAL weight = state.weight(batch.records[i], pixel);
        if (weight == 0) return;
        const REAL* const value = batch.records[i].values;
#pragma unroll
        for (int k = 0; k < CHANNELS; ++k) sums[k] += weight * value[k];
      },
      Nothing());
  if (!pixel.is_inside) return;
  if (blockIdx.y == 0) transmittance[pixel.offset] = state.open;
  REAL* const to = image + channels.first * width * height + pixel.offset;
#pragma unroll
  for (int k = 0; k < CHANNELS; ++k) {
    if (k < channels.count) to[k * width * height] = sums[k];
  }
}

#ifdef ORDERED
// Contributions of each patch to the gradients of a batch.
struct Shares {
  REAL moments[kPatches][kBatch * kMoments];
  REAL values[kPatches][kBatch * CHANNELS];
};

// Sums of the first `count` rows over the patches, one after the other.
template <int kColumns>
__device__ void add_patches(const REAL (*shares)[kBatch * kColumns], int count, REAL* to) {
  for (int i = int(threadIdx.x); i < count * kColumns; i += kThreads) {
    REAL sum = 0;
    for (int patch = 0; patch < kPatches; ++patch) sum += shares[patch][i];
    to[i] = sum;
  }
}
#endif

// moments [N, 6] and grad_values [N, C] are added to. ORDERED, each pair of a Gaussian and a tile
// has rows of its own, [parts, P, 6] and [parts, P, CHANNELS], zeros before. `image` and
// `transmittance` are what blend gave: the loss's share of what lies behind a Gaussian is the whole
// less what has gone by.
extern "C" __global__ void __launch_bounds__(kThreads, kBlocksBack)
    blend_backward(const REAL* records, const int32_t* gaussians, const int64_t* starts,
                   const REAL* values, int64_t num_channels, int64_t width, int64_t height,
                   const REAL* image, const REAL* transmittance, const REAL* grad_image,
                   const REAL* grad_transmittance, [[maybe_unused]] int64_t pairs, REAL* moments,
                   REAL* grad_values) {
  __shared__ Batch<Valued> batch;
  const Channels channels(num_channels);
  const Pixel pixel{int(width), int(height)};
  bool is_finished = !pixel.is_inside;
#ifdef ORDERED
  __shared__ Shares shares;
  int64_t first_row = 0;
#endif
  REAL open = 1, behind = 0, grad[CHANNELS] = {};
  if (pixel.is_inside) {
    const int64_t plane = width * height, from = channels.first * plane + pixel.offset;
#pragma unroll
    for (int k = 0; k < CHANNELS; ++k) {
      if (k >= channels.count) continue;
      grad[k] = grad_image[from + k * plane];
      behind += grad[k] * image[from + k * plane];
    }
    if (blockIdx.y == 0) behind += transmittance[pixel.offset] * grad_transmittance[pixel.offset];
  }
  walk(
      batch, records, gaussians, starts, pixel, is_finished,
      [&](int64_t first, int count) {
#ifdef ORDERED
        first_row = int64_t(blockIdx.y) * pairs + first;
        for (int i = lane_of_thread(); i < kBatch * kMoments; i += kWarp)
          shares.moments[warp_of_thread()][i] = 0;
        for (int i = lane_of_thread(); i < kBatch * CHANNELS; i += kWarp)
          shares.values[warp_of_thread()][i] = 0;
#endif
        load_values(batch.records[0].values, kStep, values, gaussians + first, count, channels);
      },
      [&](int i) {
        const Touch touch(batch.records[i], pixel);
        const REAL after = open * (1 - touch.alpha);
        bool counts = !is_finished && touch.alpha > 0;
        if (counts && !stays_open(after)) {
          is_finished = true;
          counts = false;
        }
        if (!__any_sync(kAllLanes, counts)) return;
        const REAL weight = counts ? open * touch.alpha : REAL(0);
        const REAL* const value = batch.records[i].values;
        REAL products[kPaddedChannels] = {}, shade = 0;
#pragma unroll
        for (int k = 0; k < CHANNELS; ++k) {
          shade += grad[k] * value[k];
          products[k] = weight * grad[k];
        }
        REAL g = 0;
        if (counts) {
          behind -= weight * shade;
          g = exponent_gradient(touch.alpha, open, shade, quick_ratio(behind, 1 - touch.alpha));
          open = after;
        }
        const REAL gx = g * touch.dx, gy = g * touch.dy;
        REAL sums[kPaddedMoments] = {g, gx, gy, gx * touch.dx, gx * touch.dy, gy * touch.dy};
#ifdef ORDERED
        REAL* const to_moments = shares.moments[warp_of_thread()] + i * kMoments;
        REAL* const to_values = shares.values[warp_of_thread()] + i * CHANNELS;
#else
        const int64_t gaussian = batch.gaussians[i];
        REAL* const to_moments = moments + gaussian * kMoments;
        REAL* const to_values = grad_values + gaussian * channels.all + channels.first;
#endif
        add_to_row<kPaddedMoments>(sums, to_moments, kMoments);
        add_to_row<kPaddedChannels>(products, to_values, channels.count);
      },
#ifdef ORDERED
      [&](int count) {
        __syncthreads();
        add_patches<kMoments>(shares.moments, count, moments + first_row * kMoments);
        add_patches<CHANNELS>(shares.values, count, grad_values + first_row * CHANNELS);
      }
#else
      Nothing()
#endif
  );
}

// From the moments [N, 6], the other gradients; zero where a Gaussian is not seen.
extern "C" __global__ void finish(const REAL* records, const REAL* moments, int64_t count,
                                  REAL* grad_means2d, REAL* grad_conics, REAL* grad_opacities) {
  const int64_t i = global_thread();
  if (i >= count) return;
  const Record r = reinterpret_cast<const Record*>(records)[i];
  REAL mean2d[2] = {}, conic[3] = {}, opacity = 0;
  if (r.reach > 0) gradients_of_moments(r, moments + kMoments * i, mean2d, conic, opacity);
  for (int k = 0; k < 2; ++k) grad_means2d[2 * i + k] = mean2d[k];
  for (int k = 0; k < 3; ++k) grad_conics[3 * i + k] = conic[k];
  grad_opacities[i] = opacity;
}

}  // namespace refer
