// As many numbers as one register of the target holds.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX512F__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace refer {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kTileRows = 12;  // with two columns of registers: 24 sums of 32 registers
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kTileRows = 6;  // 12 sums of 16 registers
#else
constexpr int kVectorBytes = 16;
constexpr int kTileRows = 6;
#endif

template <typename T>
struct Vector {
  static constexpr int kSize = kVectorBytes / sizeof(T);
#ifdef __GNUC__
  typedef T Register __attribute__((vector_size(kVectorBytes)));
  Register values;
#else
  T values[kSize];
#endif

  static Vector load(const T* from) {
    Vector v;
    std::memcpy(&v.values, from, kVectorBytes);
    return v;
  }

  void store(T* to) const { std::memcpy(to, &values, kVectorBytes); }

  // this += factor * other
  void add_product(T factor, const Vector& other) {
#ifdef __GNUC__
    values += factor * other.values;
#else
    for (int i = 0; i < kSize; ++i) values[i] += factor * other.values[i];
#endif
  }

  void add(const Vector& other) {
#ifdef __GNUC__
    values += other.values;
#else
    for (int i = 0; i < kSize; ++i) values[i] += other.values[i];
#endif
  }
};

// The first `count` numbers of a register, fewer than it has; the others are 0.
template <typename T>
Vector<T> load_some(const T* from, int64_t count) {
#if defined(__AVX512F__) && defined(__GNUC__)
  const uint32_t mask = (uint32_t{1} << count) - 1;
  Vector<T> v;
  if constexpr (sizeof(T) == 4) {
    v.values = (typename Vector<T>::Register)_mm512_maskz_loadu_ps(mask, from);
  } else {
    v.values = (typename Vector<T>::Register)_mm512_maskz_loadu_pd(mask, from);
  }
  return v;
#else
  T values[Vector<T>::kSize] = {};
  std::memcpy(values, from, count * sizeof(T));
  return Vector<T>::load(values);
#endif
}

template <typename T>
void store_some(const Vector<T>& vector, T* to, int64_t count) {
#if defined(__AVX512F__) && defined(__GNUC__)
  const uint32_t mask = (uint32_t{1} << count) - 1;
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(to, mask, (__m512)vector.values);
  } else {
    _mm512_mask_storeu_pd(to, mask, (__m512d)vector.values);
  }
#else
  T values[Vector<T>::kSize];
  vector.store(values);
  std::memcpy(to, values, count * sizeof(T));
#endif
}

}  // namespace refer
