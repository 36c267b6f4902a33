// NumPy arrays as the bindings of CPU ops take and return them.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace refer {

// An array of exactly this type, row-major unless kFlags is 0. pybind11 converts array_t, so that
// an output of another type is a copy and the result is lost; a class of its own it does not
// convert.
template <typename T, int kFlags = pybind11::array::c_style>
struct Array : pybind11::array_t<T, kFlags> {
  using pybind11::array_t<T, kFlags>::array_t;
};

// Bindings that touch no Python object while they run.
using WithoutGil = pybind11::call_guard<pybind11::gil_scoped_release>;

// Hands a vector's memory to NumPy without copying it; T may be a part of V.
template <typename T, typename V>
pybind11::array_t<T> to_array(std::vector<V>&& values) {
  static_assert(sizeof(V) % sizeof(T) == 0, "an array has whole elements");
  auto* kept = new std::vector<V>(std::move(values));
  pybind11::capsule owner(kept, [](void* p) { delete static_cast<std::vector<V>*>(p); });
  const auto size = static_cast<pybind11::ssize_t>(kept->size() * (sizeof(V) / sizeof(T)));
  return pybind11::array_t<T>(size, reinterpret_cast<const T*>(kept->data()), owner);
}

}  // namespace refer
