// Felzenszwalb and Huttenlocher's segmentation of a graph.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "radix_sort.h"

namespace refer {

struct Edge {
  int32_t from, to;
};

template <typename W>
struct Graph {
  std::vector<Edge> edges;
  std::vector<W> weights;
};

// Disjoint sets of vertices, each with its size and the weight that may still join it.
template <typename W>
class Segments {
 public:
  Segments(int64_t count, W k) : k_(k), parent_(count), size_(count, 1), limit_(count, k) {
    std::iota(parent_.begin(), parent_.end(), 0);
  }

  int32_t find(int32_t vertex) {
    while (parent_[vertex] != vertex) {
      parent_[vertex] = parent_[parent_[vertex]];
      vertex = parent_[vertex];
    }
    return vertex;
  }

  void join(int32_t a, int32_t b, W weight) {
    if (size_[a] < size_[b]) std::swap(a, b);
    parent_[b] = a;
    size_[a] += size_[b];
    limit_[a] = weight + k_ / static_cast<W>(size_[a]);
  }

  int32_t size(int32_t root) const { return size_[root]; }
  W limit(int32_t root) const { return limit_[root]; }

 private:
  W k_;
  std::vector<int32_t> parent_, size_;
  std::vector<W> limit_;
};

// A number whose order is that of a float, negative ones included.
inline uint64_t ordered_bits(float value) {
  uint32_t bits;
  value += 0.0f;  // there is one zero only
  std::memcpy(&bits, &value, sizeof(bits));
  return bits >> 31 ? ~bits : bits | uint32_t{1} << 31;
}

inline uint64_t ordered_bits(double value) {
  uint64_t bits;
  value += 0.0;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}

// labels [N] of disjoint sets, numbered in the order of their first vertices.
template <typename Sets>
void number_segments(Sets& sets, int64_t num_vertices, int64_t* labels) {
  std::vector<int64_t> number(num_vertices, -1);
  int64_t count = 0;
  for (int64_t i = 0; i < num_vertices; ++i) {
    int64_t& label = number[sets.find(static_cast<int32_t>(i))];
    if (label < 0) label = count++;
    labels[i] = label;
  }
}

// labels [N], numbered in the order of their first vertices. Edges are taken from the lightest on;
// see superpoints.cpp.
template <typename W>
void segment(const Graph<W>& graph, int64_t num_vertices, double k, int64_t min_size, int threads,
             int64_t* labels) {
  std::vector<Keyed> order(graph.edges.size());
  for (size_t i = 0; i < order.size(); ++i) {
    order[i] = {ordered_bits(graph.weights[i]), static_cast<int64_t>(i)};
  }
  radix_sort(order, 8 * sizeof(W), threads);

  Segments<W> segments(num_vertices, static_cast<W>(k));
  for (const Keyed& next : order) {
    const W weight = graph.weights[next.row];
    const Edge edge = graph.edges[next.row];
    const int32_t a = segments.find(edge.from), b = segments.find(edge.to);
    if (a != b && weight <= segments.limit(a) && weight <= segments.limit(b)) {
      segments.join(a, b, weight);
    }
  }
  for (const Keyed& next : order) {
    const Edge edge = graph.edges[next.row];
    const int32_t a = segments.find(edge.from), b = segments.find(edge.to);
    if (a != b && std::min(segments.size(a), segments.size(b)) < min_size) segments.join(a, b, 0);
  }

  number_segments(segments, num_vertices, labels);
}

}  // namespace refer
