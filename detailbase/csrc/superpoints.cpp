#include "superpoints.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "parallel.h"
#include "radix_sort.h"
#include "voxels.h"

namespace refer {
namespace {

constexpr int64_t kAtOnce = 1 << 14;
// To this 1 - cos is rounded, and by this an edge must rise above its vertex's plane to be convex:
// rounding errors would order the edges of flat surfaces by chance, on every machine differently.
constexpr double kResolution = 1.0 / (int64_t{1} << 30);

struct Point {
  double x, y, z;
};

Point operator-(const Point& a, const Point& b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
double dot(const Point& a, const Point& b) { return a.x * b.x + a.y * b.y + a.z * b.z; }

struct Edge {
  int32_t from, to;
};

template <typename T>
std::vector<Point> points_of(const T* vertices, int64_t count) {
  std::vector<Point> points(count);
  for (int64_t i = 0; i < count; ++i) {
    const T* v = vertices + 3 * i;
    if (!std::isfinite(double(v[0]) + v[1] + v[2])) {
      throw std::invalid_argument("vertices must be finite, row " + std::to_string(i) + " is not");
    }
    points[i] = {v[0], v[1], v[2]};
  }
  return points;
}

void check_faces(const int64_t* faces, int64_t num_faces, int64_t num_vertices) {
  for (int64_t i = 0; i < 3 * num_faces; ++i) {
    if (faces[i] < 0 || faces[i] >= num_vertices) {
      throw std::invalid_argument("faces must name vertices in 0.." +
                                  std::to_string(num_vertices - 1) + ", face " +
                                  std::to_string(i / 3) + " names " + std::to_string(faces[i]));
    }
  }
}

// Of length 1; of length 0 where a vertex has no face that has an area.
std::vector<Point> vertex_normals(const std::vector<Point>& points, const int64_t* faces,
                                  int64_t num_faces) {
  std::vector<Point> normals(points.size(), {0, 0, 0});
  for (const int64_t* face = faces; face != faces + 3 * num_faces; face += 3) {
    const Point a = points[face[1]] - points[face[0]], b = points[face[2]] - points[face[0]];
    const Point n = {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
    for (int corner = 0; corner < 3; ++corner) {
      Point& sum = normals[face[corner]];
      sum = {sum.x + n.x, sum.y + n.y, sum.z + n.z};
    }
  }
  for (Point& n : normals) {
    const double length = std::sqrt(dot(n, n));
    if (length > 0) n = {n.x / length, n.y / length, n.z / length};
  }
  return normals;
}

// Each edge of the triangles once, its lower vertex first, sorted.
std::vector<Edge> distinct_edges(const int64_t* faces, int64_t num_faces, int64_t num_vertices,
                                 int threads) {
  const int bits = bit_count(num_vertices);
  std::vector<Keyed> sides(3 * num_faces);
  parallel_for(num_faces, kAtOnce, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = 3 * begin; i < 3 * end; ++i) {
      const uint64_t a = faces[i], b = faces[i % 3 == 2 ? i - 2 : i + 1];
      sides[i] = {std::min(a, b) << bits | std::max(a, b), i};
    }
  });
  radix_sort(sides, 2 * bits, threads);
  std::vector<Edge> edges;
  edges.reserve(sides.size() / 2 + 1);
  for (size_t i = 0; i < sides.size(); ++i) {
    if (i > 0 && sides[i].key == sides[i - 1].key) continue;
    const uint64_t from = sides[i].key >> bits, to = sides[i].key & ((uint64_t{1} << bits) - 1);
    if (from != to) edges.push_back({static_cast<int32_t>(from), static_cast<int32_t>(to)});
  }
  return edges;
}

std::vector<double> edge_weights(const std::vector<Point>& points,
                                 const std::vector<Point>& normals, const std::vector<Edge>& edges,
                                 int threads) {
  std::vector<double> weights(edges.size());
  parallel_for(
      static_cast<int64_t>(edges.size()), kAtOnce, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const auto [from, to] = edges[i];
          const double bend = 1 - dot(normals[from], normals[to]);
          const double w = std::max(0.0, std::round(bend / kResolution)) * kResolution;
          const Point way = points[to] - points[from];
          const bool is_convex = dot(normals[to], way) > kResolution * std::sqrt(dot(way, way));
          weights[i] = is_convex ? w * w : w;
        }
      });
  return weights;
}

// Disjoint sets of vertices, each with its size and the weight that may still join it.
class Segments {
 public:
  Segments(int64_t count, double k) : k_(k), parent_(count), size_(count, 1), limit_(count, k) {
    std::iota(parent_.begin(), parent_.end(), 0);
  }

  int32_t find(int32_t vertex) {
    while (parent_[vertex] != vertex) {
      parent_[vertex] = parent_[parent_[vertex]];
      vertex = parent_[vertex];
    }
    return vertex;
  }

  void join(int32_t a, int32_t b, double weight) {
    if (size_[a] < size_[b]) std::swap(a, b);
    parent_[b] = a;
    size_[a] += size_[b];
    limit_[a] = weight + k_ / size_[a];
  }

  int32_t size(int32_t root) const { return size_[root]; }
  double limit(int32_t root) const { return limit_[root]; }

 private:
  double k_;
  std::vector<int32_t> parent_, size_;
  std::vector<double> limit_;
};

}  // namespace

template <typename T>
void mesh_superpoints(const T* vertices, int64_t num_vertices, const int64_t* faces,
                      int64_t num_faces, double k, int64_t min_vertices, int threads,
                      int64_t* labels) {
  if (num_vertices > INT32_MAX) throw std::invalid_argument("vertices must be fewer than 2^31");
  const std::vector<Point> points = points_of(vertices, num_vertices);
  check_faces(faces, num_faces, num_vertices);
  const std::vector<Point> normals = vertex_normals(points, faces, num_faces);
  const std::vector<Edge> edges = distinct_edges(faces, num_faces, num_vertices, threads);
  const std::vector<double> weights = edge_weights(points, normals, edges, threads);

  std::vector<Keyed> order(edges.size());
  for (size_t i = 0; i < edges.size(); ++i) {
    order[i].row = static_cast<int64_t>(i);
    // Numbers that are not negative are ordered as their bits.
    std::memcpy(&order[i].key, &weights[i], sizeof(double));
  }
  radix_sort(order, 64, threads);

  Segments segments(num_vertices, k);
  for (const Keyed& next : order) {
    const double weight = weights[next.row];
    const int32_t a = segments.find(edges[next.row].from), b = segments.find(edges[next.row].to);
    if (a != b && weight <= segments.limit(a) && weight <= segments.limit(b)) {
      segments.join(a, b, weight);
    }
  }
  for (const Keyed& next : order) {
    const int32_t a = segments.find(edges[next.row].from), b = segments.find(edges[next.row].to);
    if (a != b && std::min(segments.size(a), segments.size(b)) < min_vertices) {
      segments.join(a, b, 0);
    }
  }

  std::vector<int64_t> number(num_vertices, -1);
  int64_t count = 0;
  for (int64_t i = 0; i < num_vertices; ++i) {
    int64_t& label = number[segments.find(static_cast<int32_t>(i))];
    if (label < 0) label = count++;
    labels[i] = label;
  }
}

template void mesh_superpoints(const float*, int64_t, const int64_t*, int64_t, double, int64_t, int,
                               int64_t*);
template void mesh_superpoints(const double*, int64_t, const int64_t*, int64_t, double, int64_t,
                               int, int64_t*);

}  // namespace refer
