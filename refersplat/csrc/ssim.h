// Structural similarity of two images, with its gradient.
#pragma once

#include <cstdint>

namespace refer {

// Mean SSIM of `image` against `target`, both [C, H, W] in 0..1, under an 11-pixel Gaussian window
// of standard deviation 1.5 with zeros outside. Where `gradient` [C, H, W] is not null it takes the
// mean's derivative by `image`. The sum's order does not depend on `threads`.
template <typename T>
double ssim(const T* image, const T* target, int64_t channels, int64_t height, int64_t width,
            int threads, T* gradient);

}  // namespace refer
