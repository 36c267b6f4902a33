#include "rasterize.h"

#include "tiles.h"

namespace refer {
namespace {

constexpr double kMaxAlpha = 0.99;
constexpr double kMinTransmittance = 1e-4;
constexpr int64_t kGrain = 2048;

// exp(x) for x <= 0, in operations that a loop over pixels can be vectorised with; within two units
// in the last place down to the smallest alpha that counts, and still small below.
inline float fast_exp(float x) {
  x = x < -20.0f ? -20.0f : x;
  const float scaled = x * 1.44269504f;
  const float whole = (scaled + 12582912.0f) - 12582912.0f;  // rounded to the nearest integer
  const float r = x - whole * 0.693145752f - whole * 1.42860677e-6f;
  float p = 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  int32_t bits;
  std::memcpy(&bits, &p, 4);
  bits += int32_t(whole) * (1 << 23);
  std::memcpy(&p, &bits, 4);
  return p;
}
inline double fast_exp(double x) { return std::exp(x); }

// One row of one tile while its Gaussians go by.
template <typename T>
struct alignas(64) Row {
  T open[kTile];  // transmittance so far; 0 where the pixel is finished
  T left[kTile];  // transmittance behind the last Gaussian that contributed
};

// Where the Gaussian meets a tile: offsets from its centre, and which rows it can reach at all.
template <typename T>
struct alignas(64) Footprint {
  T dx[kTile], at_zero[kTile], per_dy[kTile];
  uint32_t rows;

  void compute(const Candidate<T>& c, int x0, int y0, int rows_inside) {
    const T slope = c.xy / c.xx, fall = c.yy - c.xy * slope, inverse = 1 / c.xx;
    const T first = T(x0) - c.u, last = first + T(kTile - 1);
    int32_t reached[kTile];
#pragma omp simd
    for (int i = 0; i < kTile; ++i) {
      dx[i] = c.u - T(x0 + i);
      at_zero[i] = T(-0.5) * c.xx * dx[i] * dx[i];
      per_dy[i] = -c.xy * dx[i];
      // Row i crosses the ellipse between middle - half and middle + half, right of the centre.
      const T dy = T(y0 + i) - c.v;
      const T room = (c.reach - fall * dy * dy) * inverse;
      const T half = std::sqrt(room < 0 ? T(0) : room) + T(0.01);
      const T middle = -slope * dy;
      reached[i] = (room > T(-1e-3) * inverse) & (middle + half >= first) & (middle - half <= last)
                       ? 1 << i
                       : 0;
    }
    rows = 0;
    for (int i = 0; i < kTile; ++i) rows |= uint32_t(reached[i]);
    rows &= (1u << rows_inside) - 1;
  }
};

inline int lowest_bit(uint32_t bits) {
  int i = 0;
#if defined(__GNUC__)
  i = __builtin_ctz(bits);
#else
  while (!(bits >> i & 1)) ++i;
#endif
  return i;
}

// Advances one row past one Gaussian; writes its weight at each pixel, and alpha if it is wanted.
template <typename T>
inline void blend_row(const Candidate<T>& c, const Footprint<T>& f, T dy, Row<T>& row, T* weight,
                      T* alpha_out) {
  const T flat = T(-0.5) * c.yy * dy * dy;
#pragma omp simd
  for (int i = 0; i < kTile; ++i) {
    const T power = f.at_zero[i] + dy * f.per_dy[i] + flat;
    T alpha = c.opacity * fast_exp(power);
    alpha = alpha > T(kMaxAlpha) ? T(kMaxAlpha) : alpha;
    alpha = alpha < T(kMinAlpha) ? T(0) : alpha;
    const T open = row.open[i], after = open * (1 - alpha);
    const bool alive = after >= T(kMinTransmittance);
    weight[i] = alive ? alpha * open : T(0);
    row.open[i] = alive ? after : T(0);
    row.left[i] = alive ? after : row.left[i];
    alpha_out[i] = alive ? alpha : T(0);
  }
}

template <typename T>
bool finished(const Row<T>& row) {
  T most = 0;
  for (int i = 0; i < kTile; ++i) most = row.open[i] > most ? row.open[i] : most;
  return most == 0;
}

// The part of an image that one tile covers.
struct Window {
  int x0, y0, columns, rows;
  Window(int64_t tile, int tiles_x, int height, int width)
      : x0(int(tile % tiles_x) * kTile),
        y0(int(tile / tiles_x) * kTile),
        columns(std::min(kTile, width - x0)),
        rows(std::min(kTile, height - y0)) {}
};

// Walks through a tile's Gaussians, nearest first, until all its pixels are finished:
// visit(entry, candidate, footprint, live rows).
template <typename T, typename Visit>
void walk(const TileLists<T>& lists, int64_t tile, const Window& w, Row<T>* rows,
          const Visit& visit) {
  for (int y = 0; y < kTile; ++y) {
    for (int i = 0; i < kTile; ++i) {
      rows[y].left[i] = 1;
      rows[y].open[i] = i < w.columns && y < w.rows ? 1 : 0;
    }
  }
  uint32_t live = (1u << w.rows) - 1;
  int since_check = 0;
  Footprint<T> footprint;
  for (int64_t e = lists.starts[tile]; e < lists.starts[tile + 1] && live; ++e) {
    const Candidate<T>& c = lists.candidates[lists.entries[e]];
    footprint.compute(c, w.x0, w.y0, w.rows);
    footprint.rows &= live;
    if (footprint.rows) visit(c, footprint);
    if (++since_check == 16) {
      since_check = 0;
      for (uint32_t bits = live; bits; bits &= bits - 1) {
        const int y = lowest_bit(bits);
        if (finished(rows[y])) live &= ~(1u << y);
      }
    }
  }
}

// Calls body(std::integral_constant<int, C>) for common widths, with 0 for any other. Doubles are
// for checking gradients: they are compiled once.
template <typename T, typename Body>
void with_channels(int channels, const Body& body) {
  if constexpr (sizeof(T) == 8) {
    body(std::integral_constant<int, 0>());
  } else {
    switch (channels) {
      case 1:
        return body(std::integral_constant<int, 1>());
      case 3:
        return body(std::integral_constant<int, 3>());
      case 4:
        return body(std::integral_constant<int, 4>());
      case 16:
        return body(std::integral_constant<int, 16>());
      case 32:
        return body(std::integral_constant<int, 32>());
      default:
        return body(std::integral_constant<int, 0>());
    }
  }
}

template <typename T>
T sum(const T* lanes) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < kTile; ++i) total += lanes[i];
  return total;
}

template <typename T>
T dot(const T* a, const T* b) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int i = 0; i < kTile; ++i) total += a[i] * b[i];
  return total;
}

}  // namespace

template <typename T>
void project_all(int64_t count, const T* means, const T* quats, const T* scales,
                 const Pinhole<T>& camera, int threads, T* means2d, T* conics, T* depths,
                 int32_t* radii) {
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Splat<T> s;
      radii[i] = project(means + 3 * i, quats + 4 * i, scales + 3 * i, camera, s);
      means2d[2 * i] = s.u, means2d[2 * i + 1] = s.v, depths[i] = s.depth;
      conics[3 * i] = s.xx, conics[3 * i + 1] = s.xy, conics[3 * i + 2] = s.yy;
    }
  });
}

template <typename T>
void project_all_backward(int64_t count, const T* means, const T* quats, const T* scales,
                          const Pinhole<T>& camera, const T* grad_means2d, const T* grad_conics,
                          const T* grad_depths, int threads, T* grad_means, T* grad_quats,
                          T* grad_scales) {
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Splat<T> grad = {grad_means2d[2 * i],    grad_means2d[2 * i + 1], grad_conics[3 * i],
                             grad_conics[3 * i + 1], grad_conics[3 * i + 2],  grad_depths[i]};
      project_backward(means + 3 * i, quats + 4 * i, scales + 3 * i, camera, grad,
                       grad_means + 3 * i, grad_quats + 4 * i, grad_scales + 3 * i);
    }
  });
}

template <typename T>
void shade_all(int64_t count, int coefficients, int degree, const T* means, const T* sh,
               const T* position, int threads, T* colors) {
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      shade(degree, means + 3 * i, position, sh + 3 * coefficients * i, colors + 3 * i);
    }
  });
}

template <typename T>
void shade_all_backward(int64_t count, int coefficients, int degree, const T* means, const T* sh,
                        const T* position, const T* colors, const T* grad_colors, int threads,
                        T* grad_means, T* grad_sh) {
  const int used = 3 * (degree + 1) * (degree + 1);
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* const gradient = grad_sh + 3 * coefficients * i;
      shade_backward(degree, means + 3 * i, position, sh + 3 * coefficients * i, colors + 3 * i,
                     grad_colors + 3 * i, grad_means + 3 * i, gradient);
      std::fill(gradient + used, gradient + 3 * coefficients, T(0));
    }
  });
}

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

template <typename T>
Blend<T> blend_weights(const Splats<T>& splats, int threads, T* transmittance) {
  const TileLists<T> lists = make_tile_lists(splats, threads);
  const int64_t tiles = lists.tiles();
  struct Part {
    std::vector<int64_t> ends;  // of each group's pairs
    std::vector<int32_t> gaussians;
    std::vector<uint8_t> pixels;
    std::vector<T> weights;
  };
  constexpr int kTilesPerPart = 16;
  std::vector<Part> parts((tiles + kTilesPerPart - 1) / kTilesPerPart);
  Blend<T> blend;
  blend.tile_groups.assign(tiles + 1, 0);
  parallel_for(tiles, kTilesPerPart, threads, [&](int64_t begin, int64_t end) {
    Part& part = parts[begin / kTilesPerPart];
    Row<T> rows[kTile];
    alignas(64) T weight[kTile], alpha[kTile];
    for (int64_t tile = begin; tile < end; ++tile) {
      const Window w(tile, lists.tiles_x, splats.height, splats.width);
      walk(lists, tile, w, rows, [&](const Candidate<T>& c, const Footprint<T>& f) {
        const size_t before = part.weights.size();
        for (uint32_t bits = f.rows; bits; bits &= bits - 1) {
          const int y = lowest_bit(bits);
          blend_row(c, f, c.v - T(w.y0 + y), rows[y], weight, alpha);
          for (int i = 0; i < kTile; ++i) {
            if (weight[i] == 0) continue;
            part.pixels.push_back(uint8_t(y * kTile + i));
            part.weights.push_back(weight[i]);
          }
        }
        if (part.weights.size() == before) return;
        part.gaussians.push_back(c.gaussian);
        part.ends.push_back(int64_t(part.weights.size()));
      });
      blend.tile_groups[tile + 1] = int64_t(part.gaussians.size());  // within its part, as yet
      for (int y = 0; y < w.rows; ++y) {
        const int64_t to = int64_t(w.y0 + y) * splats.width + w.x0;
        std::copy_n(rows[y].left, w.columns, transmittance + to);
      }
    }
  });

  int64_t groups = 0, pairs = 0;
  std::vector<int64_t> first_pair;
  for (size_t p = 0; p < parts.size(); ++p) {
    const int64_t last = std::min<int64_t>(tiles, int64_t(p + 1) * kTilesPerPart);
    for (int64_t tile = int64_t(p) * kTilesPerPart; tile < last; ++tile) {
      blend.tile_groups[tile + 1] += groups;
    }
    first_pair.push_back(pairs);
    groups += int64_t(parts[p].gaussians.size());
    pairs += int64_t(parts[p].weights.size());
  }
  blend.group_pairs.resize(groups + 1);
  blend.gaussians.resize(groups);
  blend.pixels.resize(pairs);
  blend.weights.resize(pairs);
  blend.group_pairs[0] = 0;
  parallel_for(int64_t(parts.size()), 1, threads, [&](int64_t p, int64_t) {
    Part& part = parts[p];
    const int64_t group = blend.tile_groups[p * kTilesPerPart];
    for (size_t i = 0; i < part.ends.size(); ++i) {
      blend.group_pairs[group + int64_t(i) + 1] = first_pair[p] + part.ends[i];
    }
    std::copy(part.gaussians.begin(), part.gaussians.end(), blend.gaussians.begin() + group);
    std::copy(part.pixels.begin(), part.pixels.end(), blend.pixels.begin() + first_pair[p]);
    std::copy(part.weights.begin(), part.weights.end(), blend.weights.begin() + first_pair[p]);
    part = Part();
  });
  return blend;
}

template <typename T>
void blend_product(const BlendView<T>& blend, const T* values, int channels, int threads,
                   T* image) {
  const int tiles_x = (blend.width + kTile - 1) / kTile;
  const int64_t plane = int64_t(blend.height) * blend.width;
  with_channels<T>(channels, [&](auto fixed) {
    const int C = decltype(fixed)::value ? decltype(fixed)::value : channels;
    parallel_for(blend.tiles, 4, threads, [&](int64_t begin, int64_t end) {
      std::vector<T> sums(size_t(kTile) * kTile * C);  // [pixels, C]
      for (int64_t tile = begin; tile < end; ++tile) {
        const Window w(tile, tiles_x, blend.height, blend.width);
        std::fill(sums.begin(), sums.end(), T(0));
        for (int64_t g = blend.tile_groups[tile]; g < blend.tile_groups[tile + 1]; ++g) {
          const T* const value = values + int64_t(blend.gaussians[g]) * C;
          for (int64_t i = blend.group_pairs[g]; i < blend.group_pairs[g + 1]; ++i) {
            T* const into = sums.data() + size_t(blend.pixels[i]) * C;
            for (int k = 0; k < C; ++k) into[k] += blend.weights[i] * value[k];
          }
        }
        for (int k = 0; k < C; ++k) {
          for (int y = 0; y < w.rows; ++y) {
            T* const to = image + k * plane + int64_t(w.y0 + y) * blend.width + w.x0;
            for (int x = 0; x < w.columns; ++x) to[x] = sums[size_t(y * kTile + x) * C + k];
          }
        }
      }
    });
  });
}

template <typename T>
void blend_transposed_product(const BlendView<T>& blend, const T* grad_image, int64_t count,
                              int channels, int threads, T* grad_values) {
  const int tiles_x = (blend.width + kTile - 1) / kTile;
  const int64_t plane = int64_t(blend.height) * blend.width;
  // A group's sums go to its own place first, and are added in order: the number of threads does
  // not change the result.
  std::vector<T> sums(size_t(blend.groups) * channels);
  with_channels<T>(channels, [&](auto fixed) {
    const int C = decltype(fixed)::value ? decltype(fixed)::value : channels;
    parallel_for(blend.tiles, 4, threads, [&](int64_t begin, int64_t end) {
      std::vector<T> grads(size_t(kTile) * kTile * C);  // [pixels, C]
      for (int64_t tile = begin; tile < end; ++tile) {
        const Window w(tile, tiles_x, blend.height, blend.width);
        for (int k = 0; k < C; ++k) {
          for (int y = 0; y < w.rows; ++y) {
            const T* const from = grad_image + k * plane + int64_t(w.y0 + y) * blend.width + w.x0;
            for (int x = 0; x < w.columns; ++x) grads[size_t(y * kTile + x) * C + k] = from[x];
          }
        }
        for (int64_t g = blend.tile_groups[tile]; g < blend.tile_groups[tile + 1]; ++g) {
          T* const into = sums.data() + g * C;
          for (int64_t i = blend.group_pairs[g]; i < blend.group_pairs[g + 1]; ++i) {
            const T* const grad = grads.data() + size_t(blend.pixels[i]) * C;
            for (int k = 0; k < C; ++k) into[k] += blend.weights[i] * grad[k];
          }
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

#define REFER_INSTANTIATE(T)                                                                       \
  template void project_all(int64_t, const T*, const T*, const T*, const Pinhole<T>&, int, T*, T*, \
                            T*, int32_t*);                                                         \
  template void project_all_backward(int64_t, const T*, const T*, const T*, const Pinhole<T>&,     \
                                     const T*, const T*, const T*, int, T*, T*, T*);               \
  template void shade_all(int64_t, int, int, const T*, const T*, const T*, int, T*);               \
  template void shade_all_backward(int64_t, int, int, const T*, const T*, const T*, const T*,      \
                                   const T*, int, T*, T*);                                         \
  template void rasterize(const Splats<T>&, const T*, int, int, T*, T*);                           \
  template void rasterize_backward(const Splats<T>&, const T*, int, const T*, const T*, const T*,  \
                                   const T*, int, T*, T*, T*, T*);                                 \
  template Blend<T> blend_weights(const Splats<T>&, int, T*);                                      \
  template void blend_product(const BlendView<T>&, const T*, int, int, T*);                        \
  template void blend_transposed_product(const BlendView<T>&, const T*, int64_t, int, int, T*);
REFER_INSTANTIATE(float)
REFER_INSTANTIATE(double)

}  // namespace refer
