// Convolution of voxel features over the pairs of a kernel map.
#pragma once

#include <cstdint>

namespace refer {

// The pairs of kernel_map.h. In a mirrored list offset v stands for V - 1 - v.
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

// out [M', D]: out_o = relu(sum over pairs (i, o) of features_i weight_v + bias + residual_o).
// Each output is summed by one thread in the order of its pairs.
template <typename T>
void sparse_conv(const T* features, const Weight<T>& weight, const Pairs& pairs,
                 const Epilogue<T>& epilogue, int threads, T* out);

// Whether the processor multiplies bfloat16.
bool has_bfloat16();

// The same with features and weights rounded to bfloat16, products and sums in float.
void sparse_conv_bfloat16(const float* features, const Weight<float>& weight, const Pairs& pairs,
                          const Epilogue<float>& epilogue, int threads, float* out);

// grad_weight [V, C, D]: the sum over each offset's pairs (i, o) of features_i^T grad_o.
template <typename T>
void sparse_conv_weight_grad(const T* features, int64_t in_channels, const T* grad,
                             int64_t out_channels, const Pairs& pairs, int threads, T* grad_weight);

}  // namespace refer
