// The module of CPU ops. Arguments are numbers and NumPy views of the tensors' memory; the Python
// wrappers check shapes, and allocate the outputs whose size they know.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "op.h"

namespace py = pybind11;

namespace {

refer::Value value_of(py::handle given) {
  refer::Value v;
  if (py::isinstance<py::array>(given)) {
    const auto array = py::reinterpret_borrow<py::array>(given);
    v.kind = array.dtype().kind();
    v.bytes = static_cast<int>(array.itemsize());
    v.data = const_cast<void*>(array.data());
    v.shape.assign(array.shape(), array.shape() + array.ndim());
    v.strides.assign(array.strides(), array.strides() + array.ndim());
    v.is_dense = array.flags() & py::array::c_style;
    v.is_writable = array.writeable();
  } else if (PyFloat_Check(given.ptr())) {
    v.kind = 'f';
    v.real = given.cast<double>();
  } else {
    v.kind = 'i';
    v.whole = given.cast<int64_t>();
  }
  return v;
}

// A number, or an array that keeps the memory it shows.
py::object object_of(const refer::Result& result) {
  if (result.bytes == 0) return py::float_(*static_cast<double*>(result.data));
  auto* const owner = new std::shared_ptr<void>(result.owner);
  py::capsule kept(owner, [](void* p) { delete static_cast<std::shared_ptr<void>*>(p); });
  const py::dtype type(result.kind + std::to_string(result.bytes));
  return py::array(type, {result.count}, {result.bytes}, result.data, kept);
}

// Calls the overload for these types. None is converted: a converted output would be a copy, and
// the result lost.
py::object call(const std::string& name, const std::vector<refer::Overload>& overloads,
                const py::args& given) {
  std::vector<refer::Value> values;
  for (const auto one : given) values.push_back(value_of(one));
  for (const refer::Overload& overload : overloads) {
    if (!overload.fits(values)) continue;
    refer::Results results;
    {
      py::gil_scoped_release release;
      results = overload.call(values);
    }
    if (results.empty()) return py::none();
    if (results.size() == 1) return object_of(results[0]);
    py::list objects;
    for (const refer::Result& result : results) objects.append(object_of(result));
    return py::tuple(objects);
  }
  throw py::type_error(name + " does not take arguments of these types");
}

}  // namespace

PYBIND11_MODULE(REFER_MODULE_NAME, module) {
  for (const auto& entry : refer::ops()) {
    module.def(entry.first.c_str(),
               [&entry](const py::args& given) { return call(entry.first, entry.second, given); });
  }
}
