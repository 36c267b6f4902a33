// What Python sees of rendering.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "blend.h"
#include "project.h"
#include "rasterize.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// view: the first three rows of world-to-camera; lens: fx, fy, cx, cy, width, height.
template <typename T>
refer::Pinhole<T> pinhole(const Array<T>& view, const Array<double>& lens) {
  refer::Pinhole<T> p;
  std::copy_n(view.data(), 12, p.view);
  p.set_lens(lens.at(0), lens.at(1), lens.at(2), lens.at(3), lens.at(4), lens.at(5));
  return p;
}

template <typename T>
refer::Splats<T> splats(const Array<T>& means2d, const Array<T>& conics, const Array<T>& depths,
                        const Array<T>& opacities, int height, int width) {
  return {means2d.shape(0), means2d.data(), conics.data(), depths.data(),
          opacities.data(), height,         width};
}

template <typename T>
refer::BlendView<T> blend_view(const Array<int64_t>& tile_groups,
                               const Array<int64_t>& tile_weights, const Array<int32_t>& gaussians,
                               const Array<int32_t>& group_rows, const Array<int32_t>& rows,
                               const Array<T>& weights, int height, int width) {
  return {height,
          width,
          tile_groups.size() - 1,
          gaussians.size(),
          weights.size(),
          tile_groups.data(),
          tile_weights.data(),
          gaussians.data(),
          group_rows.data(),
          rows.data(),
          weights.data()};
}

// Hands memory to NumPy without copying it.
template <typename V>
py::array as_array(std::vector<V>&& values) {
  auto* kept = new std::vector<V>(std::move(values));
  py::capsule owner(kept, [](void* p) { delete static_cast<std::vector<V>*>(p); });
  return py::array_t<V>(py::ssize_t(kept->size()), kept->data(), owner);
}

template <typename V>
py::array as_array(refer::Memory<V>&& values) {
  V* const kept = values.data.release();
  py::capsule owner(kept, [](void* p) { delete[] static_cast<V*>(p); });
  return py::array_t<V>(py::ssize_t(values.size), kept, owner);
}

// All arrays of a call are of one type: the Python wrappers check it.
template <typename T>
void bind_projection(py::module_& m) {
  m.def(
      "project", [](const Array<T>& means, const Array<T>& quats, const Array<T>& scales,
                    const Array<T>& view, const Array<double>& lens, int threads, Array<T>& means2d,
                    Array<T>& conics, Array<T>& depths, Array<int32_t>& radii) {
        const refer::Pinhole<T> camera = pinhole<T>(view, lens);
        const int64_t count = means.shape(0);
        const T *p = means.data(), *q = quats.data(), *s = scales.data();
        T *centres = means2d.mutable_data(), *k = conics.mutable_data(), *z = depths.mutable_data();
        int32_t* r = radii.mutable_data();
        py::gil_scoped_release release;
        refer::project_all(count, p, q, s, camera, threads, centres, k, z, r);
      });
  m.def("project_backward",
        [](const Array<T>& means, const Array<T>& quats, const Array<T>& scales,
           const Array<T>& view, const Array<double>& lens, const Array<T>& grad_means2d,
           const Array<T>& grad_conics, const Array<T>& grad_depths, int threads,
           Array<T>& grad_means, Array<T>& grad_quats, Array<T>& grad_scales) {
          const refer::Pinhole<T> camera = pinhole<T>(view, lens);
          const int64_t count = means.shape(0);
          const T *p = means.data(), *q = quats.data(), *s = scales.data();
          const T *gu = grad_means2d.data(), *gk = grad_conics.data(), *gz = grad_depths.data();
          T *gp = grad_means.mutable_data(), *gq = grad_quats.mutable_data();
          T* gs = grad_scales.mutable_data();
          py::gil_scoped_release release;
          refer::project_all_backward(count, p, q, s, camera, gu, gk, gz, threads, gp, gq, gs);
        });
  m.def("shade", [](const Array<T>& means, const Array<T>& sh, const Array<T>& position, int degree,
                    int threads, Array<T>& colors) {
    const int64_t count = means.shape(0);
    const int coefficients = int(sh.shape(1));
    const T *p = means.data(), *h = sh.data(), *o = position.data();
    T* c = colors.mutable_data();
    py::gil_scoped_release release;
    refer::shade_all(count, coefficients, degree, p, h, o, threads, c);
  });
  m.def("shade_backward", [](const Array<T>& means, const Array<T>& sh, const Array<T>& position,
                             int degree, const Array<T>& colors, const Array<T>& grad_colors,
                             int threads, Array<T>& grad_means, Array<T>& grad_sh) {
    const int64_t count = means.shape(0);
    const int coefficients = int(sh.shape(1));
    const T *p = means.data(), *h = sh.data(), *o = position.data();
    const T *c = colors.data(), *gc = grad_colors.data();
    T *gp = grad_means.mutable_data(), *gh = grad_sh.mutable_data();
    py::gil_scoped_release release;
    refer::shade_all_backward(count, coefficients, degree, p, h, o, c, gc, threads, gp, gh);
  });
}

template <typename T>
void bind_rasterize(py::module_& m) {
  m.def("rasterize", [](const Array<T>& means2d, const Array<T>& conics, const Array<T>& depths,
                        const Array<T>& opacities, const Array<T>& values, int threads,
                        Array<T>& image, Array<T>& transmittance) {
    const int height = int(transmittance.shape(0)), width = int(transmittance.shape(1));
    const auto s = splats<T>(means2d, conics, depths, opacities, height, width);
    const int channels = int(values.shape(1));
    const T* v = values.data();
    T *i = image.mutable_data(), *t = transmittance.mutable_data();
    py::gil_scoped_release release;
    refer::rasterize(s, v, channels, threads, i, t);
  });
  m.def("rasterize_backward",
        [](const Array<T>& means2d, const Array<T>& conics, const Array<T>& depths,
           const Array<T>& opacities, const Array<T>& values, const Array<T>& image,
           const Array<T>& transmittance, const Array<T>& grad_image,
           const Array<T>& grad_transmittance, int threads, Array<T>& grad_means2d,
           Array<T>& grad_conics, Array<T>& grad_opacities, Array<T>& grad_values) {
          const int height = int(transmittance.shape(0)), width = int(transmittance.shape(1));
          const auto s = splats<T>(means2d, conics, depths, opacities, height, width);
          const int channels = int(values.shape(1));
          const T *v = values.data(), *i = image.data(), *t = transmittance.data();
          const T *gi = grad_image.data(), *gt = grad_transmittance.data();
          T *gm = grad_means2d.mutable_data(), *gk = grad_conics.mutable_data();
          T *go = grad_opacities.mutable_data(), *gv = grad_values.mutable_data();
          py::gil_scoped_release release;
          refer::rasterize_backward(s, v, channels, i, t, gi, gt, threads, gm, gk, go, gv);
        });
}

template <typename T>
void bind_blend(py::module_& m) {
  m.def("blend_weights", [](const Array<T>& means2d, const Array<T>& conics, const Array<T>& depths,
                            const Array<T>& opacities, int threads, Array<T>& transmittance) {
    const int height = int(transmittance.shape(0)), width = int(transmittance.shape(1));
    const auto s = splats<T>(means2d, conics, depths, opacities, height, width);
    T* t = transmittance.mutable_data();
    refer::Blend<T> blend;
    {
      py::gil_scoped_release release;
      blend = refer::blend_weights(s, threads, t);
    }
    return py::make_tuple(
        as_array(std::move(blend.tile_groups)), as_array(std::move(blend.tile_weights)),
        as_array(std::move(blend.gaussians)), as_array(std::move(blend.group_rows)),
        as_array(std::move(blend.rows)), as_array(std::move(blend.weights)));
  });
  m.def("blend_product", [](const Array<int64_t>& tile_groups, const Array<int64_t>& tile_weights,
                            const Array<int32_t>& gaussians, const Array<int32_t>& group_rows,
                            const Array<int32_t>& rows, const Array<T>& weights,
                            const Array<T>& values, int threads, Array<T>& image) {
    const auto blend = blend_view<T>(tile_groups, tile_weights, gaussians, group_rows, rows,
                                     weights, int(image.shape(1)), int(image.shape(2)));
    const int channels = int(image.shape(0));
    const T* v = values.data();
    T* i = image.mutable_data();
    py::gil_scoped_release release;
    refer::blend_product(blend, v, channels, threads, i);
  });
  m.def("blend_transposed_product",
        [](const Array<int64_t>& tile_groups, const Array<int64_t>& tile_weights,
           const Array<int32_t>& gaussians, const Array<int32_t>& group_rows,
           const Array<int32_t>& rows, const Array<T>& weights, const Array<T>& grad_image,
           int threads, Array<T>& grad_values) {
          const auto blend =
              blend_view<T>(tile_groups, tile_weights, gaussians, group_rows, rows, weights,
                            int(grad_image.shape(1)), int(grad_image.shape(2)));
          const int64_t count = grad_values.shape(0);
          const int channels = int(grad_image.shape(0));
          const T* gi = grad_image.data();
          T* gv = grad_values.mutable_data();
          py::gil_scoped_release release;
          refer::blend_transposed_product(blend, gi, count, channels, threads, gv);
        });
}

template <typename T>
void bind(py::module_& module) {
  bind_projection<T>(module);
  bind_rasterize<T>(module);
  bind_blend<T>(module);
}

}  // namespace

void bind_rendering(py::module_& module) {
  bind<float>(module);
  bind<double>(module);
}
