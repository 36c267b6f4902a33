// Structural similarity (Wang et al. 2004) under an 11-pixel Gaussian window of standard deviation
// 1.5, with zeros outside. Two passes over strips of rows, each small enough to stay in cache. The
// first blurs the local moments and turns them into similarity and its derivatives by the blurred
// moments; the second blurs those derivatives (the window is its own transpose) and gathers them
// into the gradient.
#include <algorithm>
#include <array>
#include <vector>

#include "op.h"
#include "parallel.h"
#include "similarity.h"

namespace refer {
namespace {

constexpr int kHalf = kHalfWindow;
constexpr int64_t kStrip = 16;

// Half of the window, the centre first.
template <typename T>
std::array<T, kHalf + 1> window() {
  std::array<T, kHalf + 1> weights;
  for (int i = 0; i <= kHalf; ++i) weights[i] = static_cast<T>(window_weight(i));
  return weights;
}

// Blurs rows first..first+count of `maps` maps. `fill(map, row, to)` writes a row's W values; rows
// outside the image are zero.
template <typename T>
class StripBlur {
 public:
  StripBlur(int maps, int64_t height, int64_t width)
      : maps_(maps),
        height_(height),
        width_(width),
        line_(width + 2 * kHalf),
        across_((kStrip + 2 * kHalf) * maps * width),
        blurred_(kStrip * maps * width) {}

  template <typename Fill>
  void run(int64_t first, int64_t count, const Fill& fill) {
    for (int64_t i = 0; i < count + 2 * kHalf; ++i) {
      const int64_t row = first + i - kHalf;
      for (int map = 0; map < maps_; ++map) {
        T* to = &across_[(i * maps_ + map) * width_];
        if (row < 0 || row >= height_) {
          std::fill(to, to + width_, T(0));
          continue;
        }
        fill(map, row, line_.data() + kHalf);
        blur(line_.data() + kHalf, 1, width_, to);
      }
    }
    const int64_t stride = maps_ * width_;
    for (int64_t i = 0; i < count; ++i) {
      blur(&across_[(i + kHalf) * stride], stride, stride, &blurred_[i * stride]);
    }
  }

  // Row first + i of a map.
  const T* row(int64_t i, int map) const { return &blurred_[(i * maps_ + map) * width_]; }

 private:
  void blur(const T* from, int64_t step, int64_t count, T* to) const {
    const std::array<T, kHalf + 1> w = weights_;
#pragma omp simd
    for (int64_t x = 0; x < count; ++x) {
      T sum = w[0] * from[x];
      sum += w[1] * (from[x - step] + from[x + step]);
      sum += w[2] * (from[x - 2 * step] + from[x + 2 * step]);
      sum += w[3] * (from[x - 3 * step] + from[x + 3 * step]);
      sum += w[4] * (from[x - 4 * step] + from[x + 4 * step]);
      sum += w[5] * (from[x - 5 * step] + from[x + 5 * step]);
      to[x] = sum;
    }
  }

  const std::array<T, kHalf + 1> weights_ = window<T>();
  const int maps_;
  const int64_t height_, width_;
  std::vector<T> line_;     // one row with zeros at both ends
  std::vector<T> across_;   // [rows, maps, W] blurred along the rows
  std::vector<T> blurred_;  // [rows, maps, W] blurred both ways
};

// The similarities' sum over the pixels begin..end of a row; derivatives by mean, square and
// product where asked for.
template <typename T>
double similarity(const StripBlur<T>& blur, int64_t i, int64_t begin, int64_t end, T* by_mean,
                  T* by_square, T* by_product) {
  const T *mean_x = blur.row(i, 0), *mean_y = blur.row(i, 1);
  const T *square_x = blur.row(i, 2), *square_y = blur.row(i, 3), *product = blur.row(i, 4);
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t x = begin; x < end; ++x) {
    const Similarity<T> found(mean_x[x], mean_y[x], square_x[x], square_y[x], product[x]);
    sum += found.value;
    if (by_mean) {
      by_mean[x] = found.by_mean;
      by_square[x] = found.by_square;
      by_product[x] = found.by_product;
    }
  }
  return sum;
}

// Mean similarity of `image` and `target`, both [C, H, W] in 0..1, over the pixels that lie
// `border` or more inside. Where `gradient_or_none` has numbers it takes the mean's derivative by
// `image`. The sum's order does not depend on `threads`.
template <typename T>
Results mean_similarity(Array<const T> image, Array<const T> target, int64_t border, int threads,
                        Array<T> gradient_or_none) {
  const int64_t channels = image.shape(0), height = image.shape(1), width = image.shape(2);
  T* const gradient = gradient_or_none.or_null();
  const int64_t strips = (height + kStrip - 1) / kStrip, size = height * width;
  std::vector<double> sums(channels * strips);
  std::vector<T> slopes(gradient ? 3 * channels * size : 0);  // [C, 3, H, W]

  parallel_for(channels * strips, 1, threads, [&](int64_t begin, int64_t end) {
    StripBlur<T> blur(5, height, width);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t channel = task / strips, first = task % strips * kStrip;
      const int64_t count = std::min(kStrip, height - first);
      const T *x = image + channel * size, *y = target + channel * size;
      blur.run(first, count, [&](int map, int64_t row, T* to) {
        const T* a = (map == 1 || map == 3 ? y : x) + row * width;
        const T* b = (map == 3 || map == 4 ? y : x) + row * width;
        if (map < 2) {
          std::copy(a, a + width, to);
        } else {
          for (int64_t i = 0; i < width; ++i) to[i] = a[i] * b[i];
        }
      });
      T* slope = gradient ? &slopes[3 * channel * size] : nullptr;
      for (int64_t i = 0; i < count; ++i) {
        if (first + i < border || first + i >= height - border) continue;
        T* at = slope ? slope + (first + i) * width : nullptr;
        sums[task] += similarity(blur, i, border, width - border, at, at ? at + size : at,
                                 at ? at + 2 * size : at);
      }
    }
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  const double pixels =
      static_cast<double>(channels) * (height - 2 * border) * (width - 2 * border);
  if (!gradient) return {result(total / pixels)};

  const T scale = static_cast<T>(1 / pixels);
  parallel_for(channels * strips, 1, threads, [&](int64_t begin, int64_t end) {
    StripBlur<T> blur(3, height, width);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t channel = task / strips, first = task % strips * kStrip;
      const int64_t count = std::min(kStrip, height - first);
      const T* slope = &slopes[3 * channel * size];
      blur.run(first, count, [&](int map, int64_t row, T* to) {
        const T* from = slope + map * size + row * width;
        std::copy(from, from + width, to);
      });
      for (int64_t i = 0; i < count; ++i) {
        const int64_t offset = channel * size + (first + i) * width;
        const T *by_mean = blur.row(i, 0), *by_square = blur.row(i, 1),
                *by_product = blur.row(i, 2);
        const T *x = image + offset, *y = target + offset;
        T* to = gradient + offset;
        for (int64_t j = 0; j < width; ++j) {
          to[j] = scale * (by_mean[j] + 2 * x[j] * by_square[j] + y[j] * by_product[j]);
        }
      }
    }
  });
  return {result(total / pixels)};
}

template <typename T>
Results ssim(Array<const T> image, Array<const T> target, int threads, Array<T> gradient_or_none) {
  return mean_similarity(image, target, 0, threads, gradient_or_none);
}

template <typename T>
Results ssim_valid(Array<const T> image, Array<const T> target, int threads,
                   Array<T> gradient_or_none) {
  return mean_similarity(image, target, kHalf, threads, gradient_or_none);
}

REFER_OP(ssim, ssim, float, double)
REFER_OP(ssim_valid, ssim_valid, float, double)

}  // namespace
}  // namespace refer
