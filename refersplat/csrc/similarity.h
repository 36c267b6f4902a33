// The structural similarity (Wang et al. 2004) of a pixel. CPU and GPU code include it alike.
#pragma once

#include "both.h"

namespace refer {

constexpr int kHalfWindow = 5;

// The window's weight at a distance from its centre: exp(-d^2 / (2 1.5^2)) over the sum of all 11.
REFER_HD constexpr double window_weight(int distance) {
  return distance == 0   ? 0.2660117248617943
         : distance == 1 ? 0.21300553771125366
         : distance == 2 ? 0.1093606895097
         : distance == 3 ? 0.03600077212843082
         : distance == 4 ? 0.007598758135239184
                         : 0.0010283800844791099;
}

// A pixel's similarity, and its derivatives by the blurred moments of the image: its mean, the mean
// of its square, and of its product with the target.
template <typename T>
struct Similarity {
  T value, by_mean, by_square, by_product;

  REFER_HD Similarity(T mean_x, T mean_y, T square_x, T square_y, T product) {
    const T c1 = T(0.01 * 0.01), c2 = T(0.03 * 0.03);
    const T luminance_top = 2 * mean_x * mean_y + c1;
    const T luminance_bottom = mean_x * mean_x + mean_y * mean_y + c1;
    const T contrast_top = 2 * (product - mean_x * mean_y) + c2;
    const T contrast_bottom = square_x - mean_x * mean_x + square_y - mean_y * mean_y + c2;
    const T inverse = 1 / (luminance_bottom * contrast_bottom);
    value = luminance_top * contrast_top * inverse;
    by_product = 2 * luminance_top * inverse;
    by_square = -value * luminance_bottom * inverse;
    by_mean = 2 * mean_y * contrast_top * inverse - 2 * mean_x * value * contrast_bottom * inverse -
              mean_y * by_product - 2 * mean_x * by_square;
  }
};

}  // namespace refer
