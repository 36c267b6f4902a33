// Exact nearest neighbours in three dimensions.
#pragma once

#include <cstdint>

namespace refer {

// For each of M queries [M, 3] the k nearest of N points [N, 3], k <= N, nearest first: their
// squared distances [M, k] and indices [M, k]. Among equally near points the lower index wins.
template <typename T>
void knn(const T* queries, int64_t num_queries, const T* points, int64_t num_points, int64_t k,
         int threads, T* squared_distances, int64_t* indices);

}  // namespace refer
