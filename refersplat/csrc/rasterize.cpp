#include "rasterize.h"

#include <vector>

#include "compositing.h"

namespace refer {
namespace {

constexpr int64_t kGrain = 2048;

}  // namespace

template <typename T>
void rasterize(const Splats<T>& splats, const T* values, int channels, int threads, T* image,
               T* transmittance) {
  const TileLists<T> lists = make_tile_lists(splats, threads);
  const int64_t plane = int64_t(splats.height) * splats.width;
  with_channels<T>(channels, [&](auto fixed) {
    const int C = decltype(fixed)::value ? decltype(fixed)::value : channels;
    parallel_for(lists.tiles(), 4, threads, [&](int64_t begin, int64_t end) {
      std::vector<T> memory(size_t(C) * kTile * kTile + 16);
      T* const sums = memory.data();  // [rows, C, columns]
      Row<T> rows[kTile];
      alignas(64) T weight[kTile], alpha[kTile];
      for (int64_t tile = begin; tile < end; ++tile) {
        const Window w(tile, lists.tiles_x, splats.height, splats.width);
        std::fill(memory.begin(), memory.end(), T(0));
        walk(lists, tile, w, rows, [&](const Candidate<T>& c, const Footprint<T>& f) {
          const T* const value = values + int64_t(c.gaussian) * C;
          for (uint32_t bits = f.rows; bits; bits &= bits - 1) {
            const int y = lowest_bit(bits);
            blend_row(c, f, c.v - T(w.y0 + y), rows[y], weight, alpha);
            T* const into = sums + int64_t(y) * C * kTile;
            for (int k = 0; k < C; ++k) {
#pragma omp simd
              for (int i = 0; i < kTile; ++i) into[k * kTile + i] += weight[i] * value[k];
            }
          }
        });
        for (int y = 0; y < w.rows; ++y) {
          const int64_t to = int64_t(w.y0 + y) * splats.width + w.x0;
          std::copy_n(rows[y].left, w.columns, transmittance + to);
          for (int k = 0; k < C; ++k) {
            std::copy_n(sums + (int64_t(y) * C + k) * kTile, w.columns, image + k * plane + to);
          }
        }
      }
    });
  });
}

template <typename T>
void rasterize_backward(const Splats<T>& splats, const T* values, int channels, const T* image,
                        const T* transmittance, const T* grad_image, const T* grad_transmittance,
                        int threads, T* grad_means2d, T* grad_conics, T* grad_opacities,
                        T* grad_values) {
  const TileLists<T> lists = make_tile_lists(splats, threads);
  const int64_t plane = int64_t(splats.height) * splats.width;
  const int width = 6 + channels;  // of a slot: six moments, then the values' gradients
  std::vector<T> slots(size_t(lists.slots) * width);
  with_channels<T>(channels, [&](auto fixed) {
    const int C = decltype(fixed)::value ? decltype(fixed)::value : channels;
    parallel_for(lists.tiles(), 4, threads, [&](int64_t begin, int64_t end) {
      // Of each pixel [rows, C, columns]: the image's gradient. [rows, columns]: what the Gaussians
      // behind the current one, and the transmittance, add to the loss.
      std::vector<T> grads(size_t(C) * kTile * kTile), behind(kTile * kTile);
      std::vector<T> value_sums(size_t(C) * kTile);
      Row<T> rows[kTile];
      alignas(64) T weight[kTile], alpha[kTile], moment[3][kTile];
      for (int64_t tile = begin; tile < end; ++tile) {
        const Window w(tile, lists.tiles_x, splats.height, splats.width);
        std::fill(grads.begin(), grads.end(), T(0));
        std::fill(behind.begin(), behind.end(), T(0));
        for (int y = 0; y < w.rows; ++y) {
          const int64_t from = int64_t(w.y0 + y) * splats.width + w.x0;
          for (int i = 0; i < w.columns; ++i) {
            T rest = transmittance[from + i] * grad_transmittance[from + i];
            for (int k = 0; k < C; ++k) {
              const T grad = grad_image[k * plane + from + i];
              grads[(size_t(y) * C + k) * kTile + i] = grad;
              rest += image[k * plane + from + i] * grad;
            }
            behind[y * kTile + i] = rest;
          }
        }
        const int tile_x = int(tile % lists.tiles_x), tile_y = int(tile / lists.tiles_x);
        walk(lists, tile, w, rows, [&](const Candidate<T>& c, const Footprint<T>& f) {
          const T* const value = values + int64_t(c.gaussian) * C;
          std::memset(moment, 0, sizeof moment);
          std::fill(value_sums.begin(), value_sums.end(), T(0));
          for (uint32_t bits = f.rows; bits; bits &= bits - 1) {
            const int y = lowest_bit(bits);
            const T dy = c.v - T(w.y0 + y);
            T* const rest = behind.data() + y * kTile;
            const T* const grad = grads.data() + size_t(y) * C * kTile;
            alignas(64) T open[kTile], shade[kTile] = {};
            std::copy_n(rows[y].open, kTile, open);
            blend_row(c, f, dy, rows[y], weight, alpha);
            for (int k = 0; k < C; ++k) {
              T* const sums = value_sums.data() + k * kTile;
#pragma omp simd
              for (int i = 0; i < kTile; ++i) {
                shade[i] += grad[k * kTile + i] * value[k];
                sums[i] += weight[i] * grad[k * kTile + i];
              }
            }
#pragma omp simd
            for (int i = 0; i < kTile; ++i) {
              // Light that comes later is dimmed by 1 - alpha: d rest / d alpha = -rest / (1 -
              // alpha).
              rest[i] -= weight[i] * shade[i];
              const T grad_alpha = open[i] * shade[i] - rest[i] / (1 - alpha[i]);
              const bool slopes = alpha[i] > 0 && alpha[i] < T(kMaxAlpha);
              const T g = slopes ? grad_alpha * alpha[i] : T(0);  // of the exponent
              moment[0][i] += g;
              moment[1][i] += g * dy;
              moment[2][i] += g * dy * dy;
            }
          }
          T* const slot = slots.data() + c.slot(tile_x, tile_y) * width;
          T squares[kTile];
#pragma omp simd
          for (int i = 0; i < kTile; ++i) squares[i] = moment[0][i] * f.dx[i];
          slot[0] = sum(moment[0]);
          slot[1] = sum(squares);
          slot[2] = sum(moment[1]);
          slot[3] = dot(squares, f.dx);
          slot[4] = dot(moment[1], f.dx);
          slot[5] = sum(moment[2]);
          for (int k = 0; k < C; ++k) slot[6 + k] = sum(value_sums.data() + k * kTile);
        });
      }
    });
  });

  std::fill_n(grad_means2d, 2 * splats.count, T(0));
  std::fill_n(grad_conics, 3 * splats.count, T(0));
  std::fill_n(grad_opacities, splats.count, T(0));
  std::fill_n(grad_values, splats.count * channels, T(0));
  parallel_for(int64_t(lists.candidates.size()), kGrain, threads, [&](int64_t begin, int64_t end) {
    std::vector<T> total(width);
    for (int64_t k = begin; k < end; ++k) {
      const Candidate<T>& c = lists.candidates[k];
      const T* slot = slots.data() + c.first_slot * width;
      std::fill(total.begin(), total.end(), T(0));
      for (int n = c.tiles_x * c.tiles_y; n > 0; --n, slot += width) {
        for (int i = 0; i < width; ++i) total[i] += slot[i];
      }
      const int64_t g = c.gaussian;
      grad_means2d[2 * g] = -(c.xx * total[1] + c.xy * total[2]);
      grad_means2d[2 * g + 1] = -(c.xy * total[1] + c.yy * total[2]);
      grad_conics[3 * g] = T(-0.5) * total[3];
      grad_conics[3 * g + 1] = -total[4];
      grad_conics[3 * g + 2] = T(-0.5) * total[5];
      grad_opacities[g] = total[0] / c.opacity;
      std::copy_n(total.data() + 6, channels, grad_values + g * channels);
    }
  });
}

#define REFER_INSTANTIATE(T)                                                                      \
  template void rasterize(const Splats<T>&, const T*, int, int, T*, T*);                          \
  template void rasterize_backward(const Splats<T>&, const T*, int, const T*, const T*, const T*, \
                                   const T*, int, T*, T*, T*, T*);
REFER_INSTANTIATE(float)
REFER_INSTANTIATE(double)

}  // namespace refer
