// The backward pass of the projection with the view's gradient: a file of its own, so that the
// compiler fuses the same products in project.cpp as without it.
#include <vector>

#include "parallel.h"
#include "splat.h"

namespace refer {
namespace {

constexpr int64_t kGrain = 2048;
constexpr int64_t kView = 12;  // numbers of a view

}  // namespace

template <typename T>
void project_backward_with_view(int64_t count, const T* means, const T* quats, const T* scales,
                                const Pinhole<T>& camera, const T* grad_means2d,
                                const T* grad_conics, const T* grad_depths, int threads,
                                T* grad_means, T* grad_quats, T* grad_scales, T* grad_view) {
  // Sums of ranges, added in order: the number of threads does not change the result.
  std::vector<T> parts(kView * ((count + kGrain - 1) / kGrain));
  parallel_for(count, kGrain, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Splat<T> grad = {grad_means2d[2 * i],    grad_means2d[2 * i + 1], grad_conics[3 * i],
                             grad_conics[3 * i + 1], grad_conics[3 * i + 2],  grad_depths[i]};
      project_backward(means + 3 * i, quats + 4 * i, scales + 3 * i, camera, grad,
                       grad_means + 3 * i, grad_quats + 4 * i, grad_scales + 3 * i,
                       parts.data() + kView * (begin / kGrain));
    }
  });
  for (size_t i = 0; i < parts.size(); ++i) grad_view[i % kView] += parts[i];
}

template decltype(project_backward_with_view<float>) project_backward_with_view<float>;
template decltype(project_backward_with_view<double>) project_backward_with_view<double>;

}  // namespace refer
