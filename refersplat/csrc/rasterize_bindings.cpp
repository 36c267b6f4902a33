// Bindings of rendering.
#include "bindings.h"
#include "blend.h"
#include "project.h"
#include "rasterize.h"

namespace py = pybind11;
using refer::Array;

namespace {

// view: world-to-camera, of which three rows are read; lens: fx, fy, cx, cy, width, height.
template <typename T>
refer::Pinhole<T> pinhole(const Array<T>& view, const Array<double>& lens) {
  refer::Pinhole<T> p;
  std::copy_n(view.data(), 12, p.view);
  p.set_lens(lens.at(0), lens.at(1), lens.at(2), lens.at(3), lens.at(4), lens.at(5));
  return p;
}

template <typename T>
refer::BlendView<T> blend_view(const Array<int64_t>& tile_groups,
                               const Array<int64_t>& tile_weights, const Array<int32_t>& gaussians,
                               const Array<int32_t>& group_rows, const Array<int32_t>& rows,
                               const Array<T>& weights, const Array<T>& image) {
  return {int(image.shape(1)), int(image.shape(2)), tile_groups.size() - 1, gaussians.size(),
          weights.size(),      tile_groups.data(),  tile_weights.data(),    gaussians.data(),
          group_rows.data(),   rows.data(),         weights.data()};
}

template <typename V>
py::array to_array(refer::Memory<V>&& values) {
  V* const kept = values.data.release();
  py::capsule owner(kept, [](void* p) { delete[] static_cast<V*>(p); });
  return py::array_t<V>(py::ssize_t(values.size), kept, owner);
}

template <typename T>
void bind_projection(py::module_& m) {
  m.def(
      "project",
      [](const Array<T>& means, const Array<T>& quats, const Array<T>& scales, const Array<T>& view,
         const Array<double>& lens, int threads, Array<T>& means2d, Array<T>& conics,
         Array<T>& depths, Array<int32_t>& radii) {
        refer::project_all(means.shape(0), means.data(), quats.data(), scales.data(),
                           pinhole<T>(view, lens), threads, means2d.mutable_data(),
                           conics.mutable_data(), depths.mutable_data(), radii.mutable_data());
      },
      refer::WithoutGil());
  // grad_view: [12], zero before, or of no size where it is not wanted.
  m.def(
      "project_backward",
      [](const Array<T>& means, const Array<T>& quats, const Array<T>& scales, const Array<T>& view,
         const Array<double>& lens, const Array<T>& grad_means2d, const Array<T>& grad_conics,
         const Array<T>& grad_depths, int threads, Array<T>& grad_means, Array<T>& grad_quats,
         Array<T>& grad_scales, Array<T>& grad_view) {
        const auto run = [&](auto... out) {
          refer::project_all_backward(means.shape(0), means.data(), quats.data(), scales.data(),
                                      pinhole<T>(view, lens), grad_means2d.data(),
                                      grad_conics.data(), grad_depths.data(), threads,
                                      grad_means.mutable_data(), grad_quats.mutable_data(),
                                      grad_scales.mutable_data(), out...);
        };
        grad_view.size() ? run(grad_view.mutable_data()) : run();
      },
      refer::WithoutGil());
  m.def(
      "shade",
      [](const Array<T>& means, const Array<T>& sh, const Array<T>& position, int degree,
         int threads, Array<T>& colors) {
        refer::shade_all(means.shape(0), int(sh.shape(1)), degree, means.data(), sh.data(),
                         position.data(), threads, colors.mutable_data());
      },
      refer::WithoutGil());
  m.def(
      "shade_backward",
      [](const Array<T>& means, const Array<T>& sh, const Array<T>& position, int degree,
         const Array<T>& colors, const Array<T>& grad_colors, int threads, Array<T>& grad_means,
         Array<T>& grad_sh) {
        refer::shade_all_backward(means.shape(0), int(sh.shape(1)), degree, means.data(), sh.data(),
                                  position.data(), colors.data(), grad_colors.data(), threads,
                                  grad_means.mutable_data(), grad_sh.mutable_data());
      },
      refer::WithoutGil());
}

template <typename T>
refer::TileView<T> tile_view(const Array<T>& candidates, const Array<int32_t>& entries,
                             const Array<int64_t>& starts) {
  using Candidate = refer::Candidate<T>;
  return {candidates.size() / int64_t(sizeof(Candidate) / sizeof(T)),
          reinterpret_cast<const Candidate*>(candidates.data()), entries.data(), starts.data()};
}

template <typename T>
void bind_rasterize(py::module_& m) {
  // Returns candidates (as rows of T), entries and starts.
  m.def("tile_lists", [](const Array<T>& means2d, const Array<T>& conics, const Array<T>& depths,
                         const Array<T>& opacities, int height, int width, int threads) {
    refer::TileLists<T> lists;
    {
      py::gil_scoped_release release;
      lists =
          refer::make_tile_lists(refer::Splats<T>{means2d.shape(0), means2d.data(), conics.data(),
                                                  depths.data(), opacities.data(), height, width},
                                 threads);
    }
    return py::make_tuple(refer::to_array<T>(std::move(lists.candidates)),
                          refer::to_array<int32_t>(std::move(lists.entries)),
                          refer::to_array<int64_t>(std::move(lists.starts)));
  });
  m.def(
      "rasterize",
      [](const Array<T>& candidates, const Array<int32_t>& entries, const Array<int64_t>& starts,
         const Array<T>& values, int threads, Array<T>& image, Array<T>& transmittance) {
        refer::rasterize(tile_view<T>(candidates, entries, starts), int(transmittance.shape(0)),
                         int(transmittance.shape(1)), values.data(), int(values.shape(1)), threads,
                         image.mutable_data(), transmittance.mutable_data());
      },
      refer::WithoutGil());
  m.def(
      "rasterize_backward",
      [](const Array<T>& candidates, const Array<int32_t>& entries, const Array<int64_t>& starts,
         const Array<T>& values, const Array<T>& image, const Array<T>& transmittance,
         const Array<T>& grad_image, const Array<T>& grad_transmittance, int threads,
         Array<T>& grad_means2d, Array<T>& grad_conics, Array<T>& grad_opacities,
         Array<T>& grad_values) {
        refer::rasterize_backward(
            tile_view<T>(candidates, entries, starts), values.shape(0), int(transmittance.shape(0)),
            int(transmittance.shape(1)), values.data(), int(values.shape(1)), image.data(),
            transmittance.data(), grad_image.data(), grad_transmittance.data(), threads,
            grad_means2d.mutable_data(), grad_conics.mutable_data(), grad_opacities.mutable_data(),
            grad_values.mutable_data());
      },
      refer::WithoutGil());
}

template <typename T>
void bind_blend(py::module_& m) {
  m.def("blend_weights", [](const Array<T>& means2d, const Array<T>& conics, const Array<T>& depths,
                            const Array<T>& opacities, int threads, Array<T>& transmittance) {
    const refer::Splats<T> splats{means2d.shape(0),
                                  means2d.data(),
                                  conics.data(),
                                  depths.data(),
                                  opacities.data(),
                                  int(transmittance.shape(0)),
                                  int(transmittance.shape(1))};
    T* const t = transmittance.mutable_data();
    refer::Blend<T> blend;
    {
      py::gil_scoped_release release;
      blend = refer::blend_weights(splats, threads, t);
    }
    return py::make_tuple(refer::to_array<int64_t>(std::move(blend.tile_groups)),
                          refer::to_array<int64_t>(std::move(blend.tile_weights)),
                          to_array(std::move(blend.gaussians)),
                          to_array(std::move(blend.group_rows)), to_array(std::move(blend.rows)),
                          to_array(std::move(blend.weights)));
  });
  m.def(
      "blend_product",
      [](const Array<int64_t>& tile_groups, const Array<int64_t>& tile_weights,
         const Array<int32_t>& gaussians, const Array<int32_t>& group_rows,
         const Array<int32_t>& rows, const Array<T>& weights, const Array<T>& values, int threads,
         Array<T>& image) {
        refer::blend_product(
            blend_view<T>(tile_groups, tile_weights, gaussians, group_rows, rows, weights, image),
            values.data(), int(image.shape(0)), threads, image.mutable_data());
      },
      refer::WithoutGil());
  m.def(
      "blend_transposed_product",
      [](const Array<int64_t>& tile_groups, const Array<int64_t>& tile_weights,
         const Array<int32_t>& gaussians, const Array<int32_t>& group_rows,
         const Array<int32_t>& rows, const Array<T>& weights, const Array<T>& grad_image,
         int threads, Array<T>& grad_values) {
        refer::blend_transposed_product(blend_view<T>(tile_groups, tile_weights, gaussians,
                                                      group_rows, rows, weights, grad_image),
                                        grad_image.data(), grad_values.shape(0),
                                        int(grad_image.shape(0)), threads,
                                        grad_values.mutable_data());
      },
      refer::WithoutGil());
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
