// Alpha blending of projected Gaussians, forward and backward.
#include <algorithm>
#include <vector>

#include "compositing.h"
#include "op.h"
#include "parallel.h"

namespace refer {
namespace {

constexpr int64_t kGrain = 2048;
constexpr int kTilesPerRange = 4;

// A tile's pixels: the image's gradient [rows, C], and what the Gaussians behind the current one
// and the transmittance add to the loss.
template <typename T>
struct PixelGradients {
  std::vector<Lanes<T>> image;
  Lanes<T> behind[kTile];

  explicit PixelGradients(int channels) : image(size_t(kTile) * channels) {}

  void load(const Window& w, int height, int width, int channels, const T* colors, const T* left,
            const T* grad_colors, const T* grad_left) {
    const int64_t plane = int64_t(height) * width;
    if (w.columns < kTile) std::fill(image.begin(), image.end(), Lanes<T>());
    for (int y = 0; y < w.rows; ++y) {
      const int64_t from = w.offset(y, width);
      Lanes<T>& rest = behind[y];
      for (int i = 0; i < w.columns; ++i) rest[i] = left[from + i] * grad_left[from + i];
      for (int k = 0; k < channels; ++k) {
        Lanes<T>& grad = image[size_t(y) * channels + k];
        std::copy_n(grad_colors + k * plane + from, w.columns, grad.lane);
        for (int i = 0; i < w.columns; ++i) rest[i] += colors[k * plane + from + i] * grad[i];
      }
    }
  }
};

// Sums over a tile's pixels for one Gaussian: its moments (see kMoments) and its values' gradients.
template <typename T, int kChannels>
struct Pullback {
  Lanes<T> g, g_dy, g_dy2;
  std::vector<Lanes<T>> values;  // [C], gradients of the values

  explicit Pullback(int channels) : values(channels) {}

  void clear() {
    g = g_dy = g_dy2 = {};
    std::fill(values.begin(), values.end(), Lanes<T>());
  }

  // Blends one row as the forward pass did and adds what it pulls back.
  void add_row(const Candidate<T>& c, const Footprint<T>& f, T dy, const T* value,
               const Lanes<T>* grad, Row<T>& row, Lanes<T>& behind) {
    const int channels = kChannels ? kChannels : int(values.size());
    const Row<T> open = row;
    Lanes<T> weight, alpha, shade;  // shade: product of the image's gradient and the value
    blend_row(c, f, dy, row, weight, &alpha);
    Lanes<T>* const sums = values.data();
    int k = 0;
    for (; k + 4 <= channels; k += 4) {
#pragma omp simd
      for (int i = 0; i < kTile; ++i) {
        const T g0 = grad[k][i], g1 = grad[k + 1][i], g2 = grad[k + 2][i], g3 = grad[k + 3][i];
        shade[i] += (g0 * value[k] + g1 * value[k + 1]) + (g2 * value[k + 2] + g3 * value[k + 3]);
        sums[k][i] += weight[i] * g0;
        sums[k + 1][i] += weight[i] * g1;
        sums[k + 2][i] += weight[i] * g2;
        sums[k + 3][i] += weight[i] * g3;
      }
    }
    for (; k < channels; ++k) {
#pragma omp simd
      for (int i = 0; i < kTile; ++i) {
        shade[i] += grad[k][i] * value[k];
        sums[k][i] += weight[i] * grad[k][i];
      }
    }
#pragma omp simd
    for (int i = 0; i < kTile; ++i) {
      const T rest = behind[i] - weight[i] * shade[i];
      const T slope = exponent_gradient(alpha[i], open[i], shade[i], rest / (1 - alpha[i]));
      behind[i] = rest;
      g[i] += slope;
      g_dy[i] += slope * dy;
      g_dy2[i] += slope * dy * dy;
    }
  }

  void write(const Footprint<T>& f, T* slot) const {
    Lanes<T> g_dx;
#pragma omp simd
    for (int i = 0; i < kTile; ++i) g_dx[i] = g[i] * f.dx[i];
    slot[0] = sum(g);
    slot[1] = sum(g_dx);
    slot[2] = sum(g_dy);
    slot[3] = dot(g_dx, f.dx);
    slot[4] = dot(g_dy, f.dx);
    slot[5] = sum(g_dy2);
    for (size_t k = 0; k < values.size(); ++k) slot[kMoments + k] = sum(values[k]);
  }
};

template <typename T>
TileView<T> tile_view(Array<const T> candidates, const int32_t* entries, const int64_t* starts) {
  return {candidates.size() / int64_t(sizeof(Candidate<T>) / sizeof(T)),
          reinterpret_cast<const Candidate<T>*>(candidates.data), entries, starts};
}

// Composites values [N, C] into image [C, H, W] and transmittance [H, W]; the first three are what
// tile_lists returns.
template <typename T>
void rasterize(Array<const T> candidates, Array<const int32_t> entries, Array<const int64_t> starts,
               Array<const T> values, int threads, Array<T> image, Array<T> transmittance) {
  const TileView<T> lists = tile_view(candidates, entries, starts);
  const int height = int(transmittance.shape(0)), width = int(transmittance.shape(1));
  const int channels = int(values.shape(1));
  const int tiles_x = tiles_along(width);
  const int64_t tiles = int64_t(tiles_x) * tiles_along(height);
  const int64_t plane = int64_t(height) * width;
  with_channels<T>(channels, [&](auto fixed) {
    const int C = decltype(fixed)::value ? decltype(fixed)::value : channels;
    parallel_for(tiles, kTilesPerRange, threads, [&](int64_t begin, int64_t end) {
      std::vector<Lanes<T>> sums(size_t(kTile) * C);  // [rows, C]
      Row<T> rows[kTile];
      Lanes<T> weight;
      for (int64_t tile = begin; tile < end; ++tile) {
        const Window w(tile, tiles_x, height, width);
        std::fill(sums.begin(), sums.end(), Lanes<T>());
        walk(lists, tile, w, rows, [&](const Candidate<T>& c, const Footprint<T>& f) {
          const T* const value = values + int64_t(c.gaussian) * C;
          for (uint32_t bits = f.rows; bits; bits &= bits - 1) {
            const int y = lowest_bit(bits);
            blend_row(c, f, c.v - T(w.y0 + y), rows[y], weight, nullptr);
            add_weighted(weight, value, C, sums.data() + size_t(y) * C);
          }
        });
        for (int y = 0; y < w.rows; ++y) {
          const int64_t to = w.offset(y, width);
          write_transmittance(rows[y], w.columns, transmittance + to);
          for (int k = 0; k < C; ++k) {
            std::copy_n(sums[size_t(y) * C + k].lane, w.columns, image + k * plane + to);
          }
        }
      }
    });
  });
}

// Gradients of the Gaussians, zero where they are not seen; image and transmittance are the results
// of rasterize.
template <typename T>
void rasterize_backward(Array<const T> candidates, Array<const int32_t> entries,
                        Array<const int64_t> starts, Array<const T> values, Array<const T> image,
                        Array<const T> transmittance, Array<const T> grad_image,
                        Array<const T> grad_transmittance, int threads, Array<T> grad_means2d,
                        Array<T> grad_conics, Array<T> grad_opacities, Array<T> grad_values) {
  const TileView<T> lists = tile_view(candidates, entries, starts);
  const int height = int(transmittance.shape(0)), width = int(transmittance.shape(1));
  const int64_t count = values.shape(0);
  const int channels = int(values.shape(1));
  const int tiles_x = tiles_along(width);
  const int64_t tiles = int64_t(tiles_x) * tiles_along(height);
  // A slot for each Gaussian in each of its tiles, added in order: the number of threads does not
  // change the result.
  const int size = kMoments + channels;
  std::vector<T> slots(size_t(lists.slots()) * size);
  with_channels<T>(channels, [&](auto fixed) {
    const int C = decltype(fixed)::value ? decltype(fixed)::value : channels;
    parallel_for(tiles, kTilesPerRange, threads, [&](int64_t begin, int64_t end) {
      PixelGradients<T> pixels(C);
      Pullback<T, decltype(fixed)::value> pullback(C);
      Row<T> rows[kTile];
      for (int64_t tile = begin; tile < end; ++tile) {
        const Window w(tile, tiles_x, height, width);
        pixels.load(w, height, width, C, image, transmittance, grad_image, grad_transmittance);
        walk(lists, tile, w, rows, [&](const Candidate<T>& c, const Footprint<T>& f) {
          const T* const value = values + int64_t(c.gaussian) * C;
          pullback.clear();
          for (uint32_t bits = f.rows; bits; bits &= bits - 1) {
            const int y = lowest_bit(bits);
            pullback.add_row(c, f, c.v - T(w.y0 + y), value, &pixels.image[size_t(y) * C], rows[y],
                             pixels.behind[y]);
          }
          pullback.write(f, slots.data() + c.slot(w.x0 / kTile, w.y0 / kTile) * size);
        });
      }
    });
  });

  std::fill_n(grad_means2d.data, 2 * count, T(0));
  std::fill_n(grad_conics.data, 3 * count, T(0));
  std::fill_n(grad_opacities.data, count, T(0));
  std::fill_n(grad_values.data, count * channels, T(0));
  parallel_for(lists.count, kGrain, threads, [&](int64_t begin, int64_t end) {
    std::vector<T> total(size);
    for (int64_t k = begin; k < end; ++k) {
      const Candidate<T>& c = lists.candidates[k];
      const T* slot = slots.data() + c.first_slot * size;
      std::fill(total.begin(), total.end(), T(0));
      for (int n = c.tiles_x * c.tiles_y; n > 0; --n, slot += size) {
        for (int i = 0; i < size; ++i) total[i] += slot[i];
      }
      const int64_t g = c.gaussian;
      gradients_of_moments(c, total.data(), grad_means2d + 2 * g, grad_conics + 3 * g,
                           grad_opacities[g]);
      std::copy_n(total.data() + kMoments, channels, grad_values + g * channels);
    }
  });
}

REFER_OP(rasterize, rasterize, float, double)
REFER_OP(rasterize_backward, rasterize_backward, float, double)

}  // namespace
}  // namespace refer
