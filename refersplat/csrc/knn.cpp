#include "knn.h"

#include "op.h"

namespace refer {
namespace {

template <typename T>
void find_neighbours(Array<const T> queries, Array<const T> points, int threads,
                     Array<T> squared_distances, Array<int64_t> indices) {
  knn<T>(queries, queries.shape(0), points, points.shape(0), indices.shape(1), threads,
         squared_distances, indices);
}
REFER_OP(knn, find_neighbours, float, double)

}  // namespace
}  // namespace refer
