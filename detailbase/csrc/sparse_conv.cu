// Convolution over the pairs of a kernel map: a block of threads for each block of outputs and a
// few of their channels. No other block adds to them, so their sums stay in shared memory, and are
// added up without atomics, in a fixed order. While a block multiplies, what it needs next is on
// its way.
#include "mma.h"

#ifndef REAL
#define REAL float
#endif
#ifndef PRECISION
#define PRECISION kPlain
#endif
// Storage type of features, gradients and weights.
#ifdef HALF
#define FEATURE uint16_t
#else
#define FEATURE REAL
#endif
// Outputs of a block of the kernel map.
#ifndef BLOCK
#define BLOCK 256
#endif
// ALIGNED says that rows of features, and of gradients, begin at whole vectors.

// Rows and columns of a weight's gradient that a block makes: 32, or 64.
#ifndef SIDE
#define SIDE 64
#endif

namespace refer {

using Word = Stored<PRECISION, REAL>::Word;
using Words = Vector<Word>;
// Part of a row, as it is loaded. Halves stay as they come: to take them apart would wait for them.
#if defined(HALF) && defined(ALIGNED)
struct alignas(16) Numbers {
  static constexpr int kSize = 8;
  uint32_t words[4];
  __device__ uint16_t operator[](int j) const { return uint16_t(words[j / 2] >> (16 * (j % 2))); }
};
#else
struct Numbers : Vector<FEATURE> {
  __device__ FEATURE operator[](int j) const { return this->x[j]; }
};
#endif

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kEach = numbers_in_word(PRECISION);
constexpr int kPadding = sizeof(Word) == 8 ? 2 : 8;  // words, so that lanes read different banks

#ifdef HALF
__device__ inline REAL to_number(FEATURE bits) {
  return PRECISION == kBfloat16 ? from_bfloat16(bits) : from_float16(bits);
}
__device__ inline FEATURE to_feature(REAL x) {
  return FEATURE(PRECISION == kBfloat16 ? to_bfloat16(x) : to_float16(x));
}
#else
__device__ inline REAL to_number(FEATURE x) { return x; }
__device__ inline FEATURE to_feature(REAL x) { return x; }
#endif

__device__ inline Word to_word(FEATURE one, [[maybe_unused]] FEATURE next) {
  if constexpr (kEach == 2) return Word(uint32_t(one) | uint32_t(next) << 16);
  if constexpr (PRECISION == kTf32) return Word(to_tf32(float(one)));
  return Word(one);
}

// A matrix [rows, channels].
struct Rows {
  const FEATURE* values;
  int channels;

  // Address of the row's channel c; null for row -1.
  __device__ const FEATURE* find(int32_t row, int c) const {
    return row < 0 ? nullptr : values + int64_t(row) * channels + c;
  }

  // The numbers there, which are channel c and those behind it; zeros behind the last, and for
  // null.
  __device__ Numbers load(const FEATURE* from, int c) const {
    Numbers found = {};
    if (!from) return found;
#ifdef ALIGNED
    return c < channels ? *reinterpret_cast<const Numbers*>(from) : found;
#else
#pragma unroll
    for (int j = 0; j < Numbers::kSize; ++j) {
      if (c + j < channels) found.x[j] = from[j];
    }
    return found;
#endif
  }
};

// Goes through the pairs of the groups behind `group`, every `step`-th before `last`, a few pairs
// at once.
struct Chunks {
  const int64_t* starts;
  int64_t group, step, last;
  int64_t first, end;

  __device__ Chunks(const int64_t* starts, int64_t group, int64_t step, int64_t last)
      : starts(starts), group(group), step(step), last(last), first(0), end(0) {}
  __device__ bool is_there() const { return group < last; }
  __device__ int count(int size) const { return end - first < size ? int(end - first) : size; }
  __device__ void next(int size) {
    first += size;
    while (first >= end) {
      group += step;
      if (group >= last) return;
      first = starts[group], end = starts[group + 1];
    }
  }
};

// Terms that are added to the sums of an output, and what is done with them then.
struct Epilogue {
  const FEATURE *bias, *residual;
  bool relu;

  __device__ FEATURE operator()(REAL sum, int64_t place, int64_t channel) const {
    if (bias) sum += to_number(bias[channel]);
    if (residual) sum += to_number(residual[place]);
    return to_feature(relu && sum < 0 ? REAL(0) : sum);
  }
};

constexpr int kColumns = sizeof(REAL) == 8 ? 16 : 32;  // channels of the outputs
constexpr int kRows = 16 * kWarps;                     // pairs at once, 16 for each warp
constexpr int kDepth = 64 / sizeof(Word);              // words of each pair's features at once

struct alignas(2 * sizeof(REAL)) Two {
  REAL x[2];
};

// Place of a sum of the block: lanes whose rows follow each other use different banks.
__device__ inline int place_of_sum(int row, int column) {
  return row * kColumns + (column ^ (row & 3) * (kColumns / 4));
}

// out [M', D]: relu(sums over the pairs + bias + residual), null for no bias or residual. Or, to
// keep a GPU busy with few outputs, the kernel's offsets are split, and the sums over the pairs of
// each split go to parts [splits, M', D]. weight [V, C, D] may lie in any order; the steps of its
// dimensions are given, of which that of C or D should be 1.
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    convolve(const FEATURE* features, const FEATURE* weight, int64_t offset_step, int64_t in_step,
             int64_t out_step, const int32_t* inputs, const int32_t* outputs, const int64_t* starts,
             int64_t volume, int64_t is_mirrored, int64_t splits, int64_t num_outputs,
             int64_t in_width, int64_t out_width, const FEATURE* bias, const FEATURE* residual,
             int64_t relu, REAL* parts, FEATURE* out) {
  constexpr int kVectors = kDepth * kEach / Numbers::kSize;  // of a pair's features
  constexpr int kLoads = kRows * kVectors / kThreads;
  constexpr int kWeights = kDepth * kColumns;
  constexpr int kWeightLoads = (kWeights + kThreads - 1) / kThreads;
  struct alignas(16) Staged {
    Word left[kRows][kDepth + Words::kSize];
    Word right[kDepth][kColumns + kPadding];
  };
  struct alignas(16) Sums {
    REAL values[BLOCK * kColumns];
  };
  __shared__ Staged staged;
  __shared__ Sums all;
  const int thread = int(threadIdx.x), warp_row = warp_of_thread() * 16;
  const int in_channels = int(in_width), out_channels = int(out_width);
  const int first_column = int(blockIdx.y) * kColumns;
  const int columns = min(kColumns, out_channels - first_column);
  const int64_t own_block = int64_t(blockIdx.x) / splits, split = int64_t(blockIdx.x) % splits;
  const int64_t first_output = own_block * BLOCK, first_group = own_block * volume;
  const Rows rows{features, in_channels};

  Chunks ahead(starts, first_group + volume * split / splits - 1, 1,
               first_group + volume * (split + 1) / splits);
  int64_t first = 0;  // of the pairs that are fetched
  int count = 0;
  int32_t looked_up[kLoads];
  const FEATURE *lefts_at[kLoads], *rights_at[kWeightLoads];
  // Threads that follow each other take weights that do; where these follow each other in depth,
  // eight at once, which as words of a column meet fewer banks.
  const auto find_weight = [&](int i, int& k, int& column) {
    const int place = thread + i * kThreads;
    k = in_step == 1 ? place % 8 + place / (8 * kColumns) * 8 : place / kColumns;
    column = in_step == 1 ? place / 8 % kColumns : place % kColumns;
  };
  const auto look_up = [&] {
    ahead.next(kRows);
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int row = (thread + i * kThreads) / kVectors;
      const bool is_pair = ahead.is_there() && row < ahead.count(kRows);
      looked_up[i] = is_pair ? inputs[ahead.first + row] : -1;
    }
  };
  // Begins with the pairs that were looked up. Those behind them are to be looked up once the first
  // features of these are on their way, which would wait otherwise.
  const auto take = [&] {
    first = ahead.first, count = ahead.count(kRows);
    const int64_t offset = ahead.group - first_group;
    const int64_t matrix = (is_mirrored ? volume - 1 - offset : offset) * offset_step;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int part = (thread + i * kThreads) % kVectors;
      lefts_at[i] = rows.find(looked_up[i], part * Numbers::kSize);
    }
#pragma unroll
    for (int i = 0; i < kWeightLoads; ++i) {
      int k, column;
      find_weight(i, k, column);
      rights_at[i] = weight + matrix + k * kEach * in_step + (first_column + column) * out_step;
    }
  };

  Numbers lefts[kLoads];
  FEATURE rights[kWeightLoads][kEach];
  const auto fetch = [&](int c) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int part = (thread + i * kThreads) % kVectors;
      lefts[i] = rows.load(lefts_at[i] ? lefts_at[i] + c : nullptr, c + part * Numbers::kSize);
    }
#pragma unroll
    for (int i = 0; i < kWeightLoads; ++i) {
      int k, column;
      find_weight(i, k, column);
      const FEATURE* const from = rights_at[i] + c * in_step;
#pragma unroll
      for (int each = 0; each < kEach; ++each) {
        const bool is_there = k < kDepth && column < columns && c + k * kEach + each < in_channels;
        rights[i][each] = is_there ? from[each * in_step] : FEATURE(0);
      }
    }
  };
  const auto stage = [&] {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int row = (thread + i * kThreads) / kVectors, part = (thread + i * kThreads) % kVectors;
      Words words;
#pragma unroll
      for (int j = 0; j < Words::kSize; ++j) {
        words.x[j] = to_word(lefts[i][j * kEach], lefts[i][j * kEach + kEach - 1]);
      }
      store_vector(&staged.left[row][part * Words::kSize], words);
    }
#pragma unroll
    for (int i = 0; i < kWeightLoads; ++i) {
      int k, column;
      find_weight(i, k, column);
      if (k < kDepth && column < kColumns)
        staged.right[k][column] = to_word(rights[i][0], rights[i][kEach - 1]);
    }
  };

  for (int i = thread; i < BLOCK * kColumns; i += kThreads) all.values[i] = 0;
  using Own = Product<PRECISION, kColumns, REAL>;
  Own product;
  int32_t to[2] = {};
  look_up();
  bool goes_on = ahead.is_there() && in_channels > 0;
  int c = 0;
  if (goes_on) {
    take();
    fetch(0);
    look_up();
  }
  while (goes_on) {
    __syncthreads();
    stage();
    __syncthreads();
    const bool is_idle = warp_row >= count;
    if (c == 0) {
      product.clear();
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = warp_row + Own::row(half);
        to[half] = row < count ? outputs[first + row] : -1;
      }
    }
    c += kDepth * kEach;
    const bool is_through = c >= in_channels;
    if (is_through) {
      c = 0;
      goes_on = ahead.is_there();
      if (goes_on) take();
    }
    if (goes_on) {
      fetch(c);
      if (is_through) look_up();
    }
    if (is_idle) continue;
    product.template add<false>(staged.left[warp_row], kDepth + Words::kSize, staged.right[0],
                                kColumns + kPadding, kDepth);
    if (!is_through) continue;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (to[half] < 0) continue;
      // All are read before any is written: the compiler does not know that their places differ.
      const int row = to[half] - int(first_output);
      Two sums[Own::kOwn / 2];
      const auto place = [&](int j) {
        return reinterpret_cast<Two*>(&all.values[place_of_sum(row, Own::column(2 * j))]);
      };
#pragma unroll
      for (int j = 0; j < Own::kOwn / 2; ++j) {
        sums[j] = *place(j);
        sums[j].x[0] += product.sums[half][2 * j];
        sums[j].x[1] += product.sums[half][2 * j + 1];
      }
#pragma unroll
      for (int j = 0; j < Own::kOwn / 2; ++j) *place(j) = sums[j];
    }
  }
  __syncthreads();
  const Epilogue epilogue{bias, residual, relu != 0};
  for (int i = thread; i < BLOCK * kColumns; i += kThreads) {
    const int row = i / kColumns, column = i % kColumns;
    if (first_output + row >= num_outputs || column >= columns) continue;
    const int channel = first_column + column;
    const int64_t place = (first_output + row) * out_channels + channel;
    const REAL sum = all.values[place_of_sum(row, column)];
    if (splits > 1) {
      parts[split * num_outputs * out_channels + place] = sum;
    } else {
      out[place] = epilogue(sum, place, channel);
    }
  }
}

// out [size], of rows of `channels` numbers: relu(sum of parts [splits, size] + bias + residual).
extern "C" __global__ void join_parts(const REAL* parts, int64_t splits, int64_t size,
                                      int64_t channels, const FEATURE* bias,
                                      const FEATURE* residual, int64_t relu, FEATURE* out) {
  const int64_t i = global_thread();
  if (i >= size) return;
  REAL sum = 0;
  for (int64_t split = 0; split < splits; ++split) sum += parts[split * size + i];
  out[i] = Epilogue{bias, residual, relu != 0}(sum, i, i % channels);
}

// parts [splits, V, C, D]: the gradient of the weight from each part of the blocks of outputs.
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    weight_gradient(const FEATURE* features, const FEATURE* grad, const int32_t* inputs,
                    const int32_t* outputs, const int64_t* starts, int64_t volume,
                    int64_t is_mirrored, int64_t num_blocks, int64_t splits, int64_t in_width,
                    int64_t out_width, REAL* parts) {
  constexpr int kWidth = 32;  // columns of a warp
  constexpr int kBelow = SIDE / 16, kBeside = SIDE / kWidth;
  // Warps with the same places share the pairs.
  constexpr int kShares = kWarps / (kBelow * kBeside);
  constexpr int kWords = 8192 / (SIDE * int(sizeof(Word)));  // at once
  constexpr int kPairs = kWords * kEach, kShare = kWords / kShares;
  constexpr int kVectors = SIDE / Numbers::kSize;
  constexpr int kLoads = kWords * kVectors / kThreads;
  struct alignas(16) Staged {
    Word left[kWords][SIDE + kPadding], right[kWords][SIDE + kPadding];
  };
  static_assert(sizeof(Staged) >= SIDE * SIDE * sizeof(REAL) || kShares == 1, "holds the sums");
  __shared__ Staged staged;
  const int thread = int(threadIdx.x), warp = warp_of_thread();
  const int warp_row = warp % kBelow * 16, warp_column = warp / kBelow % kBeside * kWidth;
  const int share = warp / (kBelow * kBeside);
  const int64_t v = int64_t(blockIdx.x) % volume, split = int64_t(blockIdx.x) / volume;
  const int in_channels = int(in_width), out_channels = int(out_width);
  const int across = (out_channels + SIDE - 1) / SIDE;
  const int first_row = int(blockIdx.y) / across * SIDE;
  const int first_column = int(blockIdx.y) % across * SIDE;
  const Rows features_of{features, in_channels}, grad_of{grad, out_channels};

  Chunks ahead(starts, (num_blocks * split / splits - 1) * volume + v, volume,
               num_blocks * (split + 1) / splits * volume);
  int32_t from[kLoads][kEach], to[kLoads][kEach];
  const auto look_up = [&] {
    ahead.next(kPairs);
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
#pragma unroll
      for (int each = 0; each < kEach; ++each) {
        const int pair = (thread + i * kThreads) / kVectors * kEach + each;
        const bool is_pair = ahead.is_there() && pair < ahead.count(kPairs);
        from[i][each] = is_pair ? inputs[ahead.first + pair] : -1;
        to[i][each] = is_pair ? outputs[ahead.first + pair] : -1;
      }
    }
  };
  Numbers lefts[kLoads][kEach], rights[kLoads][kEach];
  const auto fetch = [&] {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int part = (thread + i * kThreads) % kVectors * Numbers::kSize;
#pragma unroll
      for (int each = 0; each < kEach; ++each) {
        const int row = first_row + part, column = first_column + part;
        lefts[i][each] = features_of.load(features_of.find(from[i][each], row), row);
        rights[i][each] = grad_of.load(grad_of.find(to[i][each], column), column);
      }
    }
  };
  const auto stage = [&] {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int word = (thread + i * kThreads) / kVectors;
      const int part = (thread + i * kThreads) % kVectors * Numbers::kSize;
#pragma unroll
      for (int j = 0; j < Numbers::kSize; j += Words::kSize) {
        Words left, right;
#pragma unroll
        for (int m = 0; m < Words::kSize; ++m) {
          left.x[m] = to_word(lefts[i][0][j + m], lefts[i][kEach - 1][j + m]);
          right.x[m] = to_word(rights[i][0][j + m], rights[i][kEach - 1][j + m]);
        }
        store_vector(&staged.left[word][part + j], left);
        store_vector(&staged.right[word][part + j], right);
      }
    }
  };

  using Own = Product<PRECISION, kWidth, REAL>;
  Own product;
  product.clear();
  look_up();
  bool goes_on = ahead.is_there();
  int next_count = 0;
  const auto fetch_and_look_up = [&] {  // in this order: see take
    next_count = ahead.count(kPairs);
    fetch();
    look_up();
  };
  if (goes_on) fetch_and_look_up();
  while (goes_on) {
    __syncthreads();
    stage();
    __syncthreads();
    const int count = next_count;
    goes_on = ahead.is_there();
    if (goes_on) fetch_and_look_up();
    if (share * kShare * kEach >= count) continue;
    product.template add<true>(&staged.left[share * kShare][warp_row], SIDE + kPadding,
                               &staged.right[share * kShare][warp_column], SIDE + kPadding, kShare);
  }

  const int64_t matrix = split * volume + (is_mirrored ? volume - 1 - v : v);
  const auto write = [&](int row, int column, REAL sum) {
    if (first_row + row >= in_channels || first_column + column >= out_channels) return;
    parts[(matrix * in_channels + first_row + row) * out_channels + first_column + column] = sum;
  };
  REAL* const all = reinterpret_cast<REAL*>(&staged);
  for (int turn = 0; turn < kShares; ++turn) {
    __syncthreads();
    if (share != turn) continue;
    for (int i = 0; i < 2 * Own::kOwn; ++i) {
      const int half = i / Own::kOwn, j = i % Own::kOwn;
      const int row = warp_row + Own::row(half), column = warp_column + Own::column(j);
      if (kShares == 1) {
        write(row, column, product.sums[half][j]);
      } else {
        REAL& sum = all[row * SIDE + column];
        sum = turn == 0 ? product.sums[half][j] : sum + product.sums[half][j];
      }
    }
  }
  if (kShares == 1) return;
  __syncthreads();
  for (int i = thread; i < SIDE * SIDE; i += kThreads) write(i / SIDE, i % SIDE, all[i]);
}

}  // namespace refer
