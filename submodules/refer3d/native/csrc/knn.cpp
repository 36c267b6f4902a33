// A k-d tree with boxes. Every split halves the points, so the tree is as deep for clustered points
// as for uniform ones, a far outlier costs one level of one branch, and a node's range of points
// follows from its number: nothing but the boxes is stored.
#include "knn.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "parallel.h"

namespace refer {
namespace {

constexpr int kLeafSize = 16;  // one vector of floats; a leaf is half to entirely full

template <typename T>
struct Point {
  T at[3];
  int32_t index;
};

// The points below a node lie in [low, high]; the lowest of their indices decides ties.
template <typename T>
struct Node {
  T low[3], high[3];
  int32_t lowest_index;
};

// The k best so far, nearest first.
template <typename T>
class Nearest {
 public:
  explicit Nearest(int64_t k) : distances_(k), indices_(k) {}

  void clear() {
    std::fill(distances_.begin(), distances_.end(), std::numeric_limits<T>::infinity());
    std::fill(indices_.begin(), indices_.end(), std::numeric_limits<int32_t>::max());
  }

  bool accepts(T distance, int32_t index) const {
    return distance < distances_.back() ||
           (distance == distances_.back() && index < indices_.back());
  }

  void insert(T distance, int32_t index) {
    int64_t i = static_cast<int64_t>(distances_.size()) - 1;
    for (; i > 0 && (distance < distances_[i - 1] ||
                     (distance == distances_[i - 1] && index < indices_[i - 1]));
         --i) {
      distances_[i] = distances_[i - 1];
      indices_[i] = indices_[i - 1];
    }
    distances_[i] = distance;
    indices_[i] = index;
  }

  const std::vector<T>& distances() const { return distances_; }
  const std::vector<int32_t>& indices() const { return indices_; }

 private:
  std::vector<T> distances_;
  std::vector<int32_t> indices_;
};

template <typename T>
class Tree {
 public:
  Tree(const T* points, int64_t count, int threads) : count_(count) {
    if (count >= std::numeric_limits<int32_t>::max()) {
      throw std::invalid_argument("points must be fewer than 2^31 - 1");
    }
    while ((count >> depth_) >= kLeafSize) ++depth_;
    nodes_.resize(int64_t{2} << depth_);
    std::vector<Point<T>> order(count);
    parallel_for(count, 1 << 16, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const T* p = points + 3 * i;
        if (!(std::isfinite(p[0]) && std::isfinite(p[1]) && std::isfinite(p[2]))) {
          throw std::invalid_argument("points must be finite, row " + std::to_string(i) +
                                      " is not");
        }
        order[i] = {{p[0], p[1], p[2]}, static_cast<int32_t>(i)};
      }
    });
    for (int level = 0; level <= depth_; ++level) {
      parallel_for(int64_t{1} << level, 1 + (int64_t{1} << level) / 64, threads,
                   [&](int64_t begin, int64_t end) {
                     for (int64_t j = begin; j < end; ++j) split(order, level, j);
                   });
    }
    keep_coordinates(order);
  }

  // The points below the j-th node of a level.
  int64_t range_begin(int level, int64_t j) const { return (count_ * j) >> level; }

  void search(const T* query, Nearest<T>& nearest) const {
    struct Waiting {
      int64_t node;
      T distance;
    };
    Waiting stack[32];  // one for each level, and 2^31 points make 28 of them
    int waiting = 0;
    stack[waiting++] = {1, T(0)};
    while (waiting > 0) {
      auto [node, distance] = stack[--waiting];
      if (!nearest.accepts(distance, nodes_[node].lowest_index)) continue;
      while (node < (int64_t{1} << depth_)) {
        int64_t near = 2 * node, far = near + 1;
        T near_distance = box_distance(nodes_[near], query);
        T far_distance = box_distance(nodes_[far], query);
        if (far_distance < near_distance ||
            (far_distance == near_distance &&
             nodes_[far].lowest_index < nodes_[near].lowest_index)) {
          std::swap(near, far);
          std::swap(near_distance, far_distance);
        }
        if (nearest.accepts(far_distance, nodes_[far].lowest_index)) {
          stack[waiting++] = {far, far_distance};
        }
        node = near;
      }
      scan(node - (int64_t{1} << depth_), query, nearest);
    }
  }

  const std::vector<int32_t>& order() const { return indices_; }

 private:
  // Measures a node's box and, above the leaves, sorts its points into two halves. Equal
  // coordinates are ordered by index, which keeps a cloud of duplicates searchable.
  void split(std::vector<Point<T>>& order, int level, int64_t j) {
    const auto begin = order.begin() + range_begin(level, j);
    const auto end = order.begin() + range_begin(level, j + 1);
    Node<T> node;
    std::fill_n(node.low, 3, std::numeric_limits<T>::infinity());
    std::fill_n(node.high, 3, -std::numeric_limits<T>::infinity());
    node.lowest_index = std::numeric_limits<int32_t>::max();
    for (auto point = begin; point != end; ++point) {
      for (int axis = 0; axis < 3; ++axis) {
        node.low[axis] = std::min(node.low[axis], point->at[axis]);
        node.high[axis] = std::max(node.high[axis], point->at[axis]);
      }
      node.lowest_index = std::min(node.lowest_index, point->index);
    }
    nodes_[(int64_t{1} << level) + j] = node;
    if (level == depth_) return;
    int widest = 0;
    for (int axis = 1; axis < 3; ++axis) {
      if (node.high[axis] - node.low[axis] > node.high[widest] - node.low[widest]) widest = axis;
    }
    std::nth_element(begin, order.begin() + range_begin(level + 1, 2 * j + 1), end,
                     [widest](const Point<T>& a, const Point<T>& b) {
                       return a.at[widest] < b.at[widest] ||
                              (a.at[widest] == b.at[widest] && a.index < b.index);
                     });
  }

  void keep_coordinates(const std::vector<Point<T>>& order) {
    // A scan reads a full leaf beyond the last point.
    for (auto& axis : coordinates_) axis.assign(count_ + kLeafSize, T(0));
    indices_.resize(count_);
    for (int64_t i = 0; i < count_; ++i) {
      for (int axis = 0; axis < 3; ++axis) coordinates_[axis][i] = order[i].at[axis];
      indices_[i] = order[i].index;
    }
  }

  static T box_distance(const Node<T>& node, const T* query) {
    T sum = 0;
    for (int axis = 0; axis < 3; ++axis) {
      const T outside =
          std::max(std::max(node.low[axis] - query[axis], query[axis] - node.high[axis]), T(0));
      sum += outside * outside;
    }
    return sum;
  }

  void scan(int64_t leaf, const T* query, Nearest<T>& nearest) const {
    const int64_t begin = range_begin(depth_, leaf);
    const int size = static_cast<int>(range_begin(depth_, leaf + 1) - begin);
    const T* x = coordinates_[0].data() + begin;
    const T* y = coordinates_[1].data() + begin;
    const T* z = coordinates_[2].data() + begin;
    T distances[kLeafSize];
    for (int i = 0; i < kLeafSize; ++i) {
      const T dx = x[i] - query[0], dy = y[i] - query[1], dz = z[i] - query[2];
      distances[i] = dx * dx + dy * dy + dz * dz;
    }
    for (int i = 0; i < size; ++i) {
      const int32_t index = indices_[begin + i];
      if (nearest.accepts(distances[i], index)) nearest.insert(distances[i], index);
    }
  }

  int64_t count_;
  int depth_ = 0;
  std::vector<Node<T>> nodes_;  // children of i are 2 i and 2 i + 1; the root is 1
  std::vector<T> coordinates_[3];
  std::vector<int32_t> indices_;
};

}  // namespace

template <typename T>
void knn(const T* queries, int64_t num_queries, const T* points, int64_t num_points, int64_t k,
         int threads, T* squared_distances, int64_t* indices) {
  if (num_queries == 0 || k == 0) return;
  const Tree<T> tree(points, num_points, threads);
  // Neighbouring queries visit the same nodes; where the points themselves ask, the tree's order
  // puts neighbours next to each other.
  const bool own_points = queries == points && num_queries == num_points;
  parallel_for(num_queries, 1024, threads, [&](int64_t begin, int64_t end) {
    Nearest<T> nearest(k);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = own_points ? tree.order()[i] : i;
      const T* query = queries + 3 * row;
      if (!(std::isfinite(query[0]) && std::isfinite(query[1]) && std::isfinite(query[2]))) {
        throw std::invalid_argument("queries must be finite, row " + std::to_string(row) +
                                    " is not");
      }
      nearest.clear();
      tree.search(query, nearest);
      std::copy_n(nearest.distances().begin(), k, squared_distances + row * k);
      std::copy_n(nearest.indices().begin(), k, indices + row * k);
    }
  });
}

template void knn(const float*, int64_t, const float*, int64_t, int64_t, int, float*, int64_t*);
template void knn(const double*, int64_t, const double*, int64_t, int64_t, int, double*, int64_t*);

}  // namespace refer
