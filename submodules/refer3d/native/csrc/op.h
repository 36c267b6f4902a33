// Functions that Python calls. Each stands on a list from where it is defined, and bindings.cpp,
// the only file with Python's headers, hands the list over.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace refer {

// A number or an array, as Python gives it.
struct Value {
  char kind;      // NumPy's: i for whole numbers, f for real ones
  int bytes = 0;  // of an array's numbers; 0 for a number
  int64_t whole = 0;
  double real = 0;
  void* data = nullptr;
  std::vector<int64_t> shape, strides;  // strides in bytes
  bool is_dense = false, is_writable = false;

  int64_t size() const {
    int64_t product = 1;
    for (int64_t side : shape) product *= side;
    return product;
  }
};

template <typename T>
constexpr char kKind = std::is_floating_point<T>::value ? 'f' : 'i';

// An array of exactly this type, row-major; const where it is only read.
template <typename T>
struct Array {
  T* data;
  const Value* value;

  int64_t shape(int dimension) const { return value->shape[dimension]; }
  int64_t size() const { return value->size(); }
  T* or_null() const { return size() ? data : nullptr; }
  operator T*() const { return data; }  // NOLINT: an array is read as C++ reads its own
};

// An array that is read in any order of its dimensions.
template <typename T>
struct StridedArray : Array<T> {
  int64_t stride(int dimension) const { return this->value->strides[dimension] / sizeof(T); }
};

// A parameter's value.
template <typename P>
struct Taken {
  static bool fits(const Value& v) {
    return v.bytes == 0 && (v.kind == 'i' || std::is_floating_point<P>::value);
  }
  static P from(const Value& v) { return v.kind == 'i' ? P(v.whole) : P(v.real); }
};
template <typename T>
struct Taken<StridedArray<T>> {
  static bool fits(const Value& v) {
    return v.bytes == sizeof(T) && v.kind == kKind<T> && (v.is_writable || std::is_const<T>::value);
  }
  static StridedArray<T> from(const Value& v) { return {{static_cast<T*>(v.data), &v}}; }
};
template <typename T>
struct Taken<Array<T>> {
  static bool fits(const Value& v) { return v.is_dense && Taken<StridedArray<T>>::fits(v); }
  static Array<T> from(const Value& v) { return {static_cast<T*>(v.data), &v}; }
};

// An array of one dimension that a function made, in memory of its own; a number has no bytes.
struct Result {
  char kind;
  int bytes;
  int64_t count;
  void* data;
  std::shared_ptr<void> owner;
};
using Results = std::vector<Result>;

// Hands over a vector without copying it; T may be a part of V.
template <typename T, typename V>
Result result(std::vector<V>&& values) {
  static_assert(sizeof(V) % sizeof(T) == 0, "an array has whole numbers");
  auto owner = std::make_shared<std::vector<V>>(std::move(values));
  const auto count = static_cast<int64_t>(owner->size() * (sizeof(V) / sizeof(T)));
  return {kKind<T>, sizeof(T), count, owner->data(), owner};
}

inline Result result(double number) {
  auto owner = std::make_shared<double>(number);
  return {'f', 0, 1, owner.get(), owner};
}

struct Overload {
  std::function<bool(const std::vector<Value>&)> fits;
  std::function<Results(const std::vector<Value>&)> call;
};

// By name, one for each type of numbers.
inline std::map<std::string, std::vector<Overload>>& ops() {
  static std::map<std::string, std::vector<Overload>> all;
  return all;
}

template <typename R, typename... P, size_t... I>
Overload overload(R (*function)(P...), std::index_sequence<I...>) {
  return {[](const std::vector<Value>& given) {
            return given.size() == sizeof...(P) && (Taken<P>::fits(given[I]) && ...);
          },
          [function](const std::vector<Value>& given) -> Results {
            if constexpr (std::is_void<R>::value) {
              function(Taken<P>::from(given[I])...);
              return {};
            } else {
              return function(Taken<P>::from(given[I])...);
            }
          }};
}

template <typename R, typename... P>
bool add_op(const char* name, R (*function)(P...)) {
  ops()[name].push_back(overload(function, std::index_sequence_for<P...>()));
  return true;
}

// Puts a function template on the list, for two types of numbers.
#define REFER_OP(name, function, One, Other)    \
  [[maybe_unused]] const bool name##_is_added = \
      add_op(#name, function<One>) && add_op(#name, function<Other>);

}  // namespace refer
