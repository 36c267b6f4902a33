// Values of any number of channels: a block takes CHANNELS of them, the grid's y the rest.
#pragma once

#include "device.h"

#ifndef REAL
#define REAL float
#endif
#ifndef CHANNELS
#define CHANNELS 3
#endif

namespace refer {

constexpr int kPaddedChannels = padded(CHANNELS);

// The channels of a block: CHANNELS, or those that are left.
struct Channels {
  int64_t first, all;
  int count;

  __device__ explicit Channels(int64_t all) : first(int64_t(blockIdx.y) * CHANNELS), all(all) {
    count = all - first < CHANNELS ? int(all - first) : CHANNELS;
  }
};

// values [count, CHANNELS] of some Gaussians, whose rows lie `step` apart; zero where there are
// none.
__device__ inline void load_values(REAL* to, int step, const REAL* values, const int32_t* gaussians,
                                   int count, const Channels& channels) {
  for (int i = int(threadIdx.x); i < count * CHANNELS; i += int(blockDim.x)) {
    const int k = i % CHANNELS;
    const int64_t from = int64_t(gaussians[i / CHANNELS]) * channels.all + channels.first + k;
    to[i / CHANNELS * step + k] = k < channels.count ? values[from] : REAL(0);
  }
}

// Adds numbers, summed over the warp, to a row of memory that starts at `to`; where the order of
// the sums must be the same on every run, nobody else adds to it meanwhile.
template <int kPadded>
__device__ void add_to_row(REAL* numbers, REAL* to, int count) {
  warp_sums<kPadded>(numbers);
  constexpr int kLanesEach = kWarp / kPadded;
  const int lane = lane_of_thread(), i = lane / kLanesEach;
  if (lane % kLanesEach != 0 || i >= count) return;
#ifdef ORDERED
  to[i] += numbers[0];
#else
  atomicAdd(to + i, numbers[0]);
#endif
}

}  // namespace refer
