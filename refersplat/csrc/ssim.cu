// Structural similarity: a block of threads for each tile of a channel. Its pixels and those around
// it lie in shared memory, blurred along the rows first, then along the columns.
#include "device.h"
#include "similarity.h"

#ifndef REAL
#define REAL float
#endif

namespace refer {

constexpr int kSide = 16, kThreads = kSide * kSide;
constexpr int kAround = kSide + 2 * kHalfWindow;
constexpr int kStride = 48;  // of a row, so that the two rows of a warp meet different banks

// The thread's pixel of a channel, and its tile's first.
struct Place {
  int x0, y0, x, y;
  int width, height;
  int64_t channel;  // where the channel begins

  __device__ Place(int64_t image_width, int64_t image_height)
      : width(int(image_width)), height(int(image_height)) {
    const int tiles_x = (width + kSide - 1) / kSide, tile = int(blockIdx.x);
    x0 = tile % tiles_x * kSide, y0 = tile / tiles_x * kSide;
    x = x0 + int(threadIdx.x) % kSide, y = y0 + int(threadIdx.x) / kSide;
    channel = int64_t(blockIdx.y) * width * height;
  }
  __device__ bool is_inside() const { return x < width && y < height; }
  __device__ int64_t pixel() const { return channel + int64_t(y) * width + x; }
};

// Fills `around` with the tile and what lies about it, zeros outside the image. Called by the
// block.
__device__ inline void load_around(REAL (*around)[kStride], const REAL* from, const Place& place) {
  constexpr int kTurns = (kAround * kAround + kThreads - 1) / kThreads;
  REAL values[kTurns];  // all on their way before the first is needed
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int i = int(threadIdx.x) + turn * kThreads;
    const int x = place.x0 + i % kAround - kHalfWindow, y = place.y0 + i / kAround - kHalfWindow;
    const bool is_there = x >= 0 && y >= 0 && x < place.width && y < place.height;
    const REAL value = from[place.channel + (is_there ? int64_t(y) * place.width + x : 0)];
    values[turn] = is_there ? value : REAL(0);
  }
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int i = int(threadIdx.x) + turn * kThreads;
    if (i < kAround * kAround) around[i / kAround][i % kAround] = values[turn];
  }
}

// Sums the window's weights times what value(-5..5) gives.
template <typename Value>
__device__ REAL weigh(Value value) {
  REAL sum = REAL(window_weight(0)) * value(0);
#pragma unroll
  for (int d = 1; d <= kHalfWindow; ++d) {
    sum += REAL(window_weight(d)) * (value(-d) + value(d));
  }
  return sum;
}

// Of the pixels that lie `border` or more inside; the others have 0. slopes [3, C, H, W], unless
// null: the derivatives by the blurred moments. sums [C, tiles].
extern "C" __global__ void __launch_bounds__(kThreads)
    similarity(const REAL* image, const REAL* target, int64_t size, int64_t height, int64_t width,
               int64_t border, REAL* slopes, double* sums) {
  __shared__ REAL images[2][kAround][kStride];
  __shared__ REAL across[5][kAround][kSide];
  __shared__ double totals[kThreads / kWarp];
  const Place place(width, height);
  load_around(images[0], image, place);
  load_around(images[1], target, place);
  __syncthreads();
  for (int i = int(threadIdx.x); i < kAround * kSide; i += kThreads) {
    const int row = i / kSide, column = i % kSide;
    const REAL* const x = images[0][row] + column + kHalfWindow;
    const REAL* const y = images[1][row] + column + kHalfWindow;
    across[0][row][column] = weigh([&](int d) { return x[d]; });
    across[1][row][column] = weigh([&](int d) { return y[d]; });
    across[2][row][column] = weigh([&](int d) { return x[d] * x[d]; });
    across[3][row][column] = weigh([&](int d) { return y[d] * y[d]; });
    across[4][row][column] = weigh([&](int d) { return x[d] * y[d]; });
  }
  __syncthreads();
  const int row = int(threadIdx.x) / kSide + kHalfWindow, column = int(threadIdx.x) % kSide;
  const auto blurred = [&](int map) {
    return weigh([&](int d) { return across[map][row + d][column]; });
  };
  double sum = 0;
  if (place.is_inside()) {
    const Similarity<REAL> found(blurred(0), blurred(1), blurred(2), blurred(3), blurred(4));
    const bool counts = place.x >= border && place.x < width - border && place.y >= border &&
                        place.y < height - border;
    sum = counts ? found.value : 0;
    if (slopes) {
      slopes[place.pixel()] = counts ? found.by_mean : REAL(0);
      slopes[size + place.pixel()] = counts ? found.by_square : REAL(0);
      slopes[2 * size + place.pixel()] = counts ? found.by_product : REAL(0);
    }
  }
  sum = warp_sum(sum);
  if (lane_of_thread() == 0) totals[warp_of_thread()] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kThreads / kWarp; ++warp) sum += totals[warp];
  sums[int64_t(blockIdx.y) * gridDim.x + blockIdx.x] = sum;
}

// gradient [C, H, W] of the mean over `pixels` pixels by the image.
extern "C" __global__ void __launch_bounds__(kThreads)
    similarity_gradient(const REAL* image, const REAL* target, const REAL* slopes, int64_t size,
                        int64_t height, int64_t width, int64_t pixels, REAL* gradient) {
  __shared__ REAL maps[3][kAround][kStride];
  __shared__ REAL across[3][kAround][kSide];
  const Place place(width, height);
  for (int map = 0; map < 3; ++map) load_around(maps[map], slopes + map * size, place);
  __syncthreads();
  for (int i = int(threadIdx.x); i < 3 * kAround * kSide; i += kThreads) {
    const int map = i / (kAround * kSide), row = i / kSide % kAround, column = i % kSide;
    const REAL* const from = maps[map][row] + column + kHalfWindow;
    across[map][row][column] = weigh([&](int d) { return from[d]; });
  }
  __syncthreads();
  if (!place.is_inside()) return;
  const int row = int(threadIdx.x) / kSide + kHalfWindow, column = int(threadIdx.x) % kSide;
  const auto blurred = [&](int map) {
    return weigh([&](int d) { return across[map][row + d][column]; });
  };
  const int64_t pixel = place.pixel();
  const REAL slope = blurred(0) + 2 * image[pixel] * blurred(1) + target[pixel] * blurred(2);
  gradient[pixel] = slope / REAL(pixels);
}

}  // namespace refer
