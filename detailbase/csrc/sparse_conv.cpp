// Convolution of voxel features over the pairs of a kernel map.
//
// An output's block stays in the cache while the pairs of all offsets are added to it. Of each
// offset only the pairs that exist are multiplied: their inputs are copied next to each other, and
// a tile of rows and columns is summed in registers before it is added to the output.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "op.h"
#include "parallel.h"
#include "vector.h"

#if defined(__GNUC__)
#define REFER_INLINE inline __attribute__((always_inline))
#else
#define REFER_INLINE inline
#endif

// Compiled where AVX-512 is the target; whether the processor can, it is asked when it runs.
#if defined(__AVX512F__) && defined(__GNUC__) && (defined(__clang__) || __GNUC__ >= 10)
#define REFER_BFLOAT16
#include <immintrin.h>
#endif

namespace refer {
namespace {

// The pairs of kernel_map.cpp. In a mirrored list offset v stands for V - 1 - v.
struct Pairs {
  const int32_t *inputs, *outputs;
  const int64_t* starts;
  int64_t volume, num_inputs, num_outputs, block;
  bool is_mirrored;
};

// A weight [V, C, D] in any layout: how far apart neighbours along each dimension are.
template <typename T>
struct Weight {
  const T* values;
  int64_t offset_stride, in_stride, out_stride;
  int64_t in_channels, out_channels;
};

// Terms of an output that are added to its sum before it is written; null for none.
template <typename T>
struct Epilogue {
  const T* bias;      // [D]
  const T* residual;  // [M', D]
  bool relu;
};

constexpr int kTileColumns = 2;           // registers
constexpr int64_t kDepth = 256;           // channels that are summed before the output is touched
constexpr int64_t kStride = kDepth + 16;  // a power of two would put all rows into the same sets

template <typename T>
constexpr int64_t kWidth = kTileColumns * Vector<T>::kSize;  // columns of a panel

template <typename T, int Rows, int Columns>
using Sums = Vector<T>[Rows][Columns];

// Adds sums to some of the output's rows.
template <typename T, int Rows, int Columns>
REFER_INLINE void add_sums(Sums<T, Rows, Columns>& sums, const int32_t* outputs, int64_t out_stride,
                           int64_t columns, T* out) {
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < Columns; ++j) {
      T* to = out + outputs[r] * out_stride + j * Vector<T>::kSize;
      const int64_t left = columns - j * Vector<T>::kSize;
      if (left >= Vector<T>::kSize) {
        sums[r][j].add(Vector<T>::load(to));
        sums[r][j].store(to);
      } else if (left > 0) {
        sums[r][j].add(load_some(to, left));
        store_some(sums[r][j], to, left);
      }
    }
  }
}

// Products of T, summed in T.
template <typename T>
struct Exact {
  using Sum = T;
  using Element = T;
  static constexpr int kGroup = 1;  // channels that an instruction multiplies at once

  static Element element(T value) { return value; }

  // Adds the product of Rows rows (kStride apart) and the first registers of a panel to Rows rows
  // of the output.
  template <int Rows, int Columns>
  static void multiply_tile(const T* rows, const T* panel, int64_t depth, const int32_t* outputs,
                            int64_t out_stride, int64_t columns, T* out) {
    Sums<T, Rows, Columns> sums = {};
    for (int64_t k = 0; k < depth; ++k) {
      Vector<T> weights[Columns];
      for (int j = 0; j < Columns; ++j) {
        weights[j] = Vector<T>::load(panel + k * kWidth<T> + j * Vector<T>::kSize);
      }
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
        for (int j = 0; j < Columns; ++j) {
          sums[r][j].add_product(rows[r * kStride + k], weights[j]);
        }
      }
    }
    add_sums<T, Rows, Columns>(sums, outputs, out_stride, columns, out);
  }
};

#ifdef REFER_BFLOAT16
// Products of numbers rounded to bfloat16, two channels at once, summed in float.
struct Rounded {
  using Sum = float;
  using Element = uint16_t;
  static constexpr int kGroup = 2;

  static Element element(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    const uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // ties to even
    return value != value ? 0x7fc0 : nearest;
  }

  template <int Rows, int Columns>
  __attribute__((target("avx512bf16"))) static void multiply_tile(
      const Element* rows, const Element* panel, int64_t depth, const int32_t* outputs,
      int64_t out_stride, int64_t columns, float* out) {
    __m512 products[Rows][Columns] = {};
    for (int64_t k = 0; k < depth; k += kGroup) {
      __m512i weights[Columns];
      for (int j = 0; j < Columns; ++j) {
        weights[j] = _mm512_loadu_si512(panel + k * kWidth<float> + j * 32);
      }
#pragma GCC unroll 16
      for (int r = 0; r < Rows; ++r) {
        int32_t pair;
        std::memcpy(&pair, rows + r * kStride + k, sizeof(pair));
        const __m512i both = _mm512_set1_epi32(pair);
#pragma GCC unroll 4
        for (int j = 0; j < Columns; ++j) {
          products[r][j] = _mm512_dpbf16_ps(products[r][j], (__m512bh)both, (__m512bh)weights[j]);
        }
      }
    }
    Sums<float, Rows, Columns> sums;
    for (int r = 0; r < Rows; ++r) {
      for (int j = 0; j < Columns; ++j) sums[r][j].values = products[r][j];
    }
    add_sums<float, Rows, Columns>(sums, outputs, out_stride, columns, out);
  }
};
#endif

template <typename Kind>
constexpr int64_t padded(int64_t channels) {
  return (channels + Kind::kGroup - 1) / Kind::kGroup * Kind::kGroup;
}

// A weight as panels of kWidth columns: [V][panel][C / kGroup][kWidth][kGroup], filled up with
// zeros.
template <typename Kind>
class Panels {
 public:
  using Sum = typename Kind::Sum;
  using Element = typename Kind::Element;
  static constexpr int64_t kColumns = kWidth<Sum>;

  Panels(const Weight<Sum>& weight, int64_t volume, bool is_mirrored, int threads)
      : depth_(padded<Kind>(weight.in_channels)),
        count_((weight.out_channels + kColumns - 1) / kColumns),
        values_(volume * count_ * depth_ * kColumns) {
    parallel_for(volume * count_, 4, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t offset = i / count_, column = i % count_ * kColumns;
        const int64_t columns = std::min(kColumns, weight.out_channels - column);
        const Sum* from = weight.values + column * weight.out_stride +
                          (is_mirrored ? volume - 1 - offset : offset) * weight.offset_stride;
        Element* to = values_.data() + i * depth_ * kColumns;
        for (int64_t c = 0; c < weight.in_channels; ++c) {
          for (int64_t d = 0; d < columns; ++d) {
            const int64_t at = (c / Kind::kGroup * kColumns + d) * Kind::kGroup + c % Kind::kGroup;
            to[at] = Kind::element(from[c * weight.in_stride + d * weight.out_stride]);
          }
        }
      }
    });
  }

  int64_t count() const { return count_; }
  const Element* panel(int64_t offset, int64_t i) const {
    return values_.data() + (offset * count_ + i) * depth_ * kColumns;
  }

 private:
  int64_t depth_, count_;
  std::vector<Element> values_;
};

template <typename Kind>
using Tile = void (*)(const typename Kind::Element*, const typename Kind::Element*, int64_t,
                      const int32_t*, int64_t, int64_t, typename Kind::Sum*);

template <typename Kind, int Columns, int... Less>
constexpr std::array<Tile<Kind>, sizeof...(Less)> tiles(std::integer_sequence<int, Less...>) {
  return {Kind::template multiply_tile<Less + 1, Columns>...};
}

// The product for each number of rows, one row first: of a panel, and of its first register alone,
// where the others would hold zeros.
template <typename Kind>
constexpr auto kTiles = tiles<Kind, kTileColumns>(std::make_integer_sequence<int, kTileRows>());
template <typename Kind>
constexpr auto kNarrowTiles = tiles<Kind, 1>(std::make_integer_sequence<int, kTileRows>());

template <typename Kind>
class Convolution {
 public:
  using Sum = typename Kind::Sum;
  using Element = typename Kind::Element;

  // The features' rows have as many channels as `padded` says.
  Convolution(const Element* features, const Weight<Sum>& weight, const Pairs& pairs,
              const Epilogue<Sum>& epilogue, int threads, Sum* out)
      : features_(features),
        in_channels_(padded<Kind>(weight.in_channels)),
        out_channels_(weight.out_channels),
        pairs_(pairs),
        epilogue_(epilogue),
        panels_(weight, pairs.volume, pairs.is_mirrored, threads),
        out_(out) {}

  void run(int threads) const {
    const int64_t blocks = (pairs_.num_outputs + pairs_.block - 1) / pairs_.block;
    parallel_for(blocks, 1, threads, [&](int64_t begin, int64_t end) {
      thread_local std::vector<Element> rows;
      rows.resize(pairs_.block * kStride);
      for (int64_t i = begin; i < end; ++i) block(i, rows.data());
    });
  }

 private:
  // One block of outputs; `rows` has room for a block's inputs, kStride each.
  void block(int64_t index, Element* rows) const {
    const int64_t first = index * pairs_.block;
    const int64_t last = std::min(first + pairs_.block, pairs_.num_outputs);
    start_sums(first, last);
    for (int64_t offset = 0; offset < pairs_.volume; ++offset) {
      const int64_t group = index * pairs_.volume + offset;
      const int64_t begin = pairs_.starts[group], count = pairs_.starts[group + 1] - begin;
      for (int64_t channel = 0; channel < in_channels_; channel += kDepth) {
        const int64_t depth = std::min(kDepth, in_channels_ - channel);
        for (int64_t i = 0; i < count; ++i) {
          const Element* from = features_ + pairs_.inputs[begin + i] * in_channels_ + channel;
          std::copy_n(from, depth, rows + i * kStride);
        }
        add_products(rows, offset, channel, depth, pairs_.outputs + begin, count);
      }
    }
    if (epilogue_.relu) {
      for (Sum* x = out_ + first * out_channels_; x != out_ + last * out_channels_; ++x) {
        *x = *x < Sum(0) ? Sum(0) : *x;  // NaN stays
      }
    }
  }

  void start_sums(int64_t first, int64_t last) const {
    for (int64_t o = first; o < last; ++o) {
      Sum* row = out_ + o * out_channels_;
      if (epilogue_.residual != nullptr) {
        std::copy_n(epilogue_.residual + o * out_channels_, out_channels_, row);
      } else {
        std::fill_n(row, out_channels_, Sum(0));
      }
      if (epilogue_.bias != nullptr) {
        for (int64_t d = 0; d < out_channels_; ++d) row[d] += epilogue_.bias[d];
      }
    }
  }

  void add_products(const Element* rows, int64_t offset, int64_t channel, int64_t depth,
                    const int32_t* outputs, int64_t count) const {
    for (int64_t p = 0; p < panels_.count(); ++p) {
      const Element* panel = panels_.panel(offset, p) + channel * kWidth<Sum>;
      const int64_t column = p * kWidth<Sum>, columns = out_channels_ - column;
      const auto& tiles = columns > Vector<Sum>::kSize ? kTiles<Kind> : kNarrowTiles<Kind>;
      for (int64_t i = 0; i < count; i += kTileRows) {
        const int64_t tile = std::min<int64_t>(kTileRows, count - i);
        tiles[tile - 1](rows + i * kStride, panel, depth, outputs + i, out_channels_, columns,
                        out_ + column);
      }
    }
  }

  const Element* features_;
  int64_t in_channels_, out_channels_;
  const Pairs& pairs_;
  const Epilogue<Sum>& epilogue_;
  Panels<Kind> panels_;
  Sum* out_;
};

// Adds to Rows rows (channels of the input) and one panel's columns of a weight's gradient.
template <typename T, int Rows, int Columns>
void weight_grad_tile(const T* features, int64_t in_channels, const T* grad, int64_t out_channels,
                      const int32_t* inputs, const int32_t* outputs, int64_t count, int64_t columns,
                      T* out) {
  Vector<T> sums[Rows][Columns] = {};
  for (int64_t i = 0; i < count; ++i) {
    const T* row = features + inputs[i] * in_channels;
    const T* from = grad + outputs[i] * out_channels;
    Vector<T> grads[Columns];
    for (int j = 0; j < Columns; ++j) {
      const int64_t left = columns - j * Vector<T>::kSize;
      if (left >= Vector<T>::kSize) {
        grads[j] = Vector<T>::load(from + j * Vector<T>::kSize);
      } else {
        grads[j] = load_some(from + j * Vector<T>::kSize, std::max<int64_t>(left, 0));
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
      for (int j = 0; j < Columns; ++j) sums[r][j].add_product(row[r], grads[j]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < Columns; ++j) {
      T* to = out + r * out_channels + j * Vector<T>::kSize;
      const int64_t left = columns - j * Vector<T>::kSize;
      if (left >= Vector<T>::kSize) {
        sums[r][j].add(Vector<T>::load(to));
        sums[r][j].store(to);
      } else if (left > 0) {
        sums[r][j].add(load_some(to, left));
        store_some(sums[r][j], to, left);
      }
    }
  }
}

template <typename T>
using GradTile = void (*)(const T*, int64_t, const T*, int64_t, const int32_t*, const int32_t*,
                          int64_t, int64_t, T*);

template <typename T, int Columns, int... Less>
constexpr std::array<GradTile<T>, sizeof...(Less)> grad_tiles(std::integer_sequence<int, Less...>) {
  return {weight_grad_tile<T, Less + 1, Columns>...};
}

template <typename T>
constexpr auto kGradTiles =
    grad_tiles<T, kTileColumns>(std::make_integer_sequence<int, kTileRows>());
template <typename T>
constexpr auto kNarrowGradTiles = grad_tiles<T, 1>(std::make_integer_sequence<int, kTileRows>());

// The gradient of one offset's weight [C, D] from one group of pairs.
template <typename T>
void add_weight_grad(const T* features, int64_t in_channels, const T* grad, int64_t out_channels,
                     const int32_t* inputs, const int32_t* outputs, int64_t count, T* out) {
  for (int64_t column = 0; column < out_channels; column += kWidth<T>) {
    const bool is_narrow = out_channels - column <= Vector<T>::kSize;
    const auto& tiles = is_narrow ? kNarrowGradTiles<T> : kGradTiles<T>;
    for (int64_t c = 0; c < in_channels; c += kTileRows) {
      const int64_t rows = std::min<int64_t>(kTileRows, in_channels - c);
      tiles[rows - 1](features + c, in_channels, grad + column, out_channels, inputs, outputs,
                      count, out_channels - column, out + c * out_channels + column);
    }
  }
}

// out [M', D]: out_o = relu(sum over pairs (i, o) of features_i weight_v + bias + residual_o),
// where bias and residual may have no size. Each output is summed by one thread in the order of its
// pairs.
template <typename Kind, typename T>
void convolve(const typename Kind::Element* features, Array<const T> rows,
              StridedArray<const T> weight, const int32_t* inputs, const int32_t* outputs,
              const int64_t* starts, int64_t block, bool is_mirrored, Array<const T> bias,
              Array<const T> residual, bool relu, int threads, Array<T> out) {
  const Pairs pairs{inputs,        outputs,      starts, weight.shape(0),
                    rows.shape(0), out.shape(0), block,  is_mirrored};
  const Weight<T> layout{weight,           weight.stride(0), weight.stride(1),
                         weight.stride(2), weight.shape(1),  weight.shape(2)};
  const Epilogue<T> epilogue{bias.or_null(), residual.or_null(), relu};
  Convolution<Kind>(features, layout, pairs, epilogue, threads, out).run(threads);
}

template <typename T>
void sparse_conv(Array<const T> features, StridedArray<const T> weight, Array<const int32_t> inputs,
                 Array<const int32_t> outputs, Array<const int64_t> starts, int64_t block,
                 bool is_mirrored, Array<const T> bias, Array<const T> residual, bool relu,
                 int threads, Array<T> out) {
  convolve<Exact<T>, T>(features, features, weight, inputs, outputs, starts, block, is_mirrored,
                        bias, residual, relu, threads, out);
}
REFER_OP(sparse_conv, sparse_conv, float, double)

// The same with features and weights rounded to bfloat16, products and sums in float.
#ifdef REFER_BFLOAT16
Results has_bfloat16() { return {result(double(__builtin_cpu_supports("avx512bf16") != 0))}; }

void sparse_conv_bfloat16(Array<const float> features, StridedArray<const float> weight,
                          Array<const int32_t> inputs, Array<const int32_t> outputs,
                          Array<const int64_t> starts, int64_t block, bool is_mirrored,
                          Array<const float> bias, Array<const float> residual, bool relu,
                          int threads, Array<float> out) {
  const int64_t channels = weight.shape(1), width = padded<Rounded>(channels);
  const int64_t count = features.shape(0);
  std::vector<uint16_t> rounded(count * width);
  parallel_for(count, 1 << 12, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t c = 0; c < channels; ++c) {
        rounded[i * width + c] = Rounded::element(features[i * channels + c]);
      }
    }
  });
  convolve<Rounded, float>(rounded.data(), features, weight, inputs, outputs, starts, block,
                           is_mirrored, bias, residual, relu, threads, out);
}
const bool bfloat16_is_added = add_op("sparse_conv_bfloat16", sparse_conv_bfloat16);
#else
Results has_bfloat16() { return {result(0.0)}; }
#endif
const bool has_bfloat16_is_added = add_op("has_bfloat16", has_bfloat16);

// grad_weight [V, C, D]: the sum over each offset's pairs (i, o) of features_i^T grad_o.
template <typename T>
void sparse_conv_weight_grad(Array<const T> features, Array<const T> grad,
                             Array<const int32_t> inputs, Array<const int32_t> outputs,
                             Array<const int64_t> starts, int64_t block, bool is_mirrored,
                             int threads, Array<T> grad_weight) {
  const int64_t in_channels = features.shape(1), out_channels = grad.shape(1);
  const Pairs pairs{inputs,        outputs, starts,     grad_weight.shape(0), features.shape(0),
                    grad.shape(0), block,   is_mirrored};
  // Tasks are parts of the kernel, whose gradients fit into the cache, times chunks of blocks. A
  // chunk sums into a copy of its own, so that the result does not depend on the threads.
  constexpr int64_t kPartBytes = 256 << 10, kTasks = 16;
  const int64_t blocks = (pairs.num_outputs + pairs.block - 1) / pairs.block;
  const int64_t matrix = in_channels * out_channels, size = pairs.volume * matrix;
  const int64_t part =
      std::max<int64_t>(1, kPartBytes / int64_t(sizeof(T)) / std::max<int64_t>(1, matrix));
  const int64_t parts = (pairs.volume + part - 1) / part;
  const int64_t chunks = std::max<int64_t>(1, std::min(kTasks / parts, blocks));
  std::vector<T> copies((chunks - 1) * size);
  const auto copy = [&](int64_t chunk) {
    return chunk == 0 ? grad_weight.data : copies.data() + (chunk - 1) * size;
  };
  std::fill_n(grad_weight.data, size, T(0));
  parallel_for(chunks * parts, 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t chunk = task / parts, first = task % parts * part;
      const int64_t last = std::min(first + part, pairs.volume);
      for (int64_t b = blocks * chunk / chunks; b < blocks * (chunk + 1) / chunks; ++b) {
        for (int64_t v = first; v < last; ++v) {
          const int64_t group = b * pairs.volume + v, at = pairs.starts[group];
          const int64_t offset = pairs.is_mirrored ? pairs.volume - 1 - v : v;
          add_weight_grad<T>(features, in_channels, grad, out_channels, pairs.inputs + at,
                             pairs.outputs + at, pairs.starts[group + 1] - at,
                             copy(chunk) + offset * matrix);
        }
      }
    }
  });
  parallel_for(size, 1 << 14, threads, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = 1; chunk < chunks; ++chunk) {
      const T* from = copy(chunk);
      for (int64_t i = begin; i < end; ++i) grad_weight[i] += from[i];
    }
  });
}

REFER_OP(sparse_conv_weight_grad, sparse_conv_weight_grad, float, double)

}  // namespace
}  // namespace refer
