// Over-segmentation of surfaces: Felzenszwalb and Huttenlocher's, on the edges of a mesh or between
// neighbouring points.
//
// An edge weighs 1 - cos of the angle between the normals at its ends. Edges are taken from the
// lightest on; one joins two segments that it is no heavier than either's heaviest edge so far plus
// k / size. Then, in the same order, segments of fewer than min_size vertices are joined to what
// they touch.

// ScanNet's program rounds after every operation: joined into one, they would round once.
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#endif
#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "knn.h"
#include "op.h"
#include "parallel.h"
#include "radix_sort.h"
#include "regions.h"
#include "segments.h"
#include "voxels.h"

namespace refer {
namespace {

constexpr int64_t kAtOnce = 1 << 14;
// To this 1 - cos is rounded, and by this an edge must rise above its vertex's plane to be convex:
// rounding errors would order the edges of flat surfaces by chance, on every machine differently.
constexpr double kResolution = 1.0 / (int64_t{1} << 30);
// Points whose two smallest spreads differ by less than this part of the largest lie in no
// plane.
constexpr double kFlatness = 1e-9;
// As many nearest points as touch a point in a plane, itself counted: those share a border with it.
constexpr int64_t kNear = 9;
// Of a point's side, the part of its border that an edge crosses: in a square grid, 1 + 2 / sqrt(2)
// edges cross each side.
constexpr double kShare = 0.414;
constexpr double kSparse = 9;
constexpr double kPi = 3.14159265358979323846;

template <typename T>
struct Point {
  T x, y, z;
};
template <typename T>
Point<T> operator+(const Point<T>& a, const Point<T>& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z};
}
template <typename T>
Point<T> operator-(const Point<T>& a, const Point<T>& b) {
  return {a.x - b.x, a.y - b.y, a.z - b.z};
}
template <typename T>
Point<T> operator*(T a, const Point<T>& b) {
  return {a * b.x, a * b.y, a * b.z};
}
template <typename T>
Point<T> operator/(const Point<T>& a, T b) {
  return {a.x / b, a.y / b, a.z / b};
}
template <typename T>
T dot(const Point<T>& a, const Point<T>& b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}
template <typename T>
Point<T> cross(const Point<T>& a, const Point<T>& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
// The vector of length 1, or 0.
template <typename T>
Point<T> unit(const Point<T>& a) {
  const T length = std::sqrt(dot(a, a));
  return length > 0 ? a / length : a;
}

template <typename W, typename T>
std::vector<Point<W>> points_of(const char* name, const T* coordinates, int64_t count) {
  if (count > INT32_MAX)
    throw std::invalid_argument(std::string(name) + " must be fewer than 2^31");
  std::vector<Point<W>> points(count);
  for (int64_t i = 0; i < count; ++i) {
    const T* at = coordinates + 3 * i;
    if (!(std::isfinite(at[0]) && std::isfinite(at[1]) && std::isfinite(at[2]))) {
      throw std::invalid_argument(std::string(name) + " must be finite, row " + std::to_string(i) +
                                  " is not");
    }
    points[i] = {W(at[0]), W(at[1]), W(at[2])};
  }
  return points;
}

// Rows of `row`, a face or an edge, whose corners must be vertices.
void check_rows(const std::string& row, const Array<const int64_t>& rows, int64_t num_vertices) {
  for (int64_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < 0 || rows[i] >= num_vertices) {
      throw std::invalid_argument(
          row + "s must name vertices in 0.." + std::to_string(num_vertices - 1) + ", " + row +
          " " + std::to_string(i / rows.shape(1)) + " names " + std::to_string(rows[i]));
    }
  }
}

// The edges of these keys (one vertex above the other's `bits`), each once, sorted.
std::vector<Edge> distinct_edges(std::vector<Keyed>& keys, int bits, int threads) {
  radix_sort(keys, 2 * bits, threads);
  std::vector<Edge> edges;
  edges.reserve(keys.size() / 2 + 1);
  for (size_t i = 0; i < keys.size(); ++i) {
    if (i > 0 && keys[i].key == keys[i - 1].key) continue;
    const uint64_t from = keys[i].key >> bits, to = keys[i].key & ((uint64_t{1} << bits) - 1);
    if (from != to) edges.push_back({static_cast<int32_t>(from), static_cast<int32_t>(to)});
  }
  return edges;
}

Keyed edge_key(uint64_t a, uint64_t b, int bits) {
  return {std::min(a, b) << bits | std::max(a, b), 0};
}

double rounded(double bend) { return std::max(0.0, std::round(bend / kResolution)) * kResolution; }

// By area. A vertex without a face that has an area has the normal 0.
Graph<double> area_graph(const std::vector<Point<double>>& points, const int64_t* faces,
                         int64_t num_faces, int threads) {
  std::vector<Point<double>> normals(points.size(), {0, 0, 0});
  for (const int64_t* face = faces; face != faces + 3 * num_faces; face += 3) {
    const Point<double>& corner = points[face[0]];
    const Point<double> n = cross(points[face[1]] - corner, points[face[2]] - corner);
    for (int i = 0; i < 3; ++i) normals[face[i]] = normals[face[i]] + n;
  }
  for (Point<double>& n : normals) n = unit(n);

  const int bits = bit_count(static_cast<int64_t>(points.size()));
  std::vector<Keyed> sides(3 * num_faces);
  parallel_for(num_faces, kAtOnce, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = 3 * begin; i < 3 * end; ++i) {
      sides[i] = edge_key(faces[i], faces[i % 3 == 2 ? i - 2 : i + 1], bits);
    }
  });
  Graph<double> graph{distinct_edges(sides, bits, threads), {}};
  graph.weights.resize(graph.edges.size());
  parallel_for(
      static_cast<int64_t>(graph.edges.size()), kAtOnce, threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const auto [from, to] = graph.edges[i];
          const double w = rounded(1 - dot(normals[from], normals[to]));
          const Point<double> way = points[to] - points[from];
          const bool is_convex = dot(normals[to], way) > kResolution * std::sqrt(dot(way, way));
          graph.weights[i] = is_convex ? w * w : w;
        }
      });
  return graph;
}

// The weight of an edge as ScanNet's program computes it.
float scannet_weight(const std::vector<Point<float>>& points,
                     const std::vector<Point<float>>& normals, Edge edge) {
  const auto [from, to] = edge;
  const float w = 1.0f - dot(normals[from], normals[to]);
  const bool is_convex = dot(normals[to], unit(points[to] - points[from])) > 0;
  return is_convex ? w * w : w;
}

// As ScanNet's program does it. A face without an area, which has no normal there, is left out of
// its vertices' means.
Graph<float> scannet_graph(const std::vector<Point<float>>& points, const int64_t* faces,
                           int64_t num_faces, int threads) {
  std::vector<Point<float>> normals(points.size(), {0, 0, 0});
  std::vector<int32_t> counts(points.size(), 0);
  for (const int64_t* face = faces; face != faces + 3 * num_faces; face += 3) {
    const Point<float>& corner = points[face[0]];
    const Point<float> n = unit(cross(points[face[1]] - corner, points[face[2]] - corner));
    if (!(dot(n, n) > 0)) continue;
    for (int i = 0; i < 3; ++i) {
      Point<float>& mean = normals[face[i]];
      const float share = 1.0f / (static_cast<float>(counts[face[i]]++) + 1.0f);
      mean = share * n + (1.0f - share) * mean;
    }
  }

  Graph<float> graph;
  graph.edges.resize(3 * num_faces);
  graph.weights.resize(3 * num_faces);
  parallel_for(num_faces, kAtOnce, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = 3 * begin; i < 3 * end; ++i) {
      constexpr int kFrom[] = {0, 0, 2}, kTo[] = {1, 2, 1};
      const int64_t* face = faces + i / 3 * 3;
      graph.edges[i] = {static_cast<int32_t>(face[kFrom[i % 3]]),
                        static_cast<int32_t>(face[kTo[i % 3]])};
      graph.weights[i] = scannet_weight(points, normals, graph.edges[i]);
    }
  });
  return graph;
}

// The direction in which points vary least, of length 1, from the six sums of their products (xx,
// xy, xz, yy, yz, zz), by Jacobi's rotations; 0 where two directions are equally good.
Point<double> flattest(const std::array<double, 6>& sums) {
  double m[3][3] = {
      {sums[0], sums[1], sums[2]}, {sums[1], sums[3], sums[4]}, {sums[2], sums[4], sums[5]}};
  double axes[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};  // columns
  for (int sweep = 0; sweep < 12; ++sweep) {
    const double off = m[0][1] * m[0][1] + m[0][2] * m[0][2] + m[1][2] * m[1][2];
    const double trace = m[0][0] + m[1][1] + m[2][2];
    if (!(off > 1e-32 * trace * trace)) break;
    for (int p = 0; p < 2; ++p) {
      for (int q = p + 1; q < 3; ++q) {
        if (m[p][q] == 0) continue;
        const double half = (m[q][q] - m[p][p]) / (2 * m[p][q]);
        const double t = std::copysign(1.0, half) / (std::fabs(half) + std::sqrt(half * half + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        for (int i = 0; i < 3; ++i) {
          const double a = m[i][p], b = m[i][q];
          m[i][p] = c * a - s * b;
          m[i][q] = s * a + c * b;
        }
        for (int i = 0; i < 3; ++i) {
          const double a = m[p][i], b = m[q][i];
          m[p][i] = c * a - s * b;
          m[q][i] = s * a + c * b;
        }
        for (auto& row : axes) {
          const double a = row[p], b = row[q];
          row[p] = c * a - s * b;
          row[q] = s * a + c * b;
        }
      }
    }
  }
  int order[] = {0, 1, 2};
  std::sort(order, order + 3, [&](int a, int b) { return m[a][a] < m[b][b]; });
  const int least = order[0];
  if (!(m[order[1]][order[1]] - m[least][least] > kFlatness * m[order[2]][order[2]]))
    return {0, 0, 0};
  return {axes[0][least], axes[1][least], axes[2][least]};
}

// The features of points: products of the normal's entries, which do not depend on its sign, and
// the colour. Between normals at an angle they lie sin(angle) apart. Each point stands for the area
// of which its neighbours have their share, at most kSparse times the median's.
void merge_cloud(const std::vector<Point<double>>& points, const Point<double>* colors,
                 const double* squared_distances, const int64_t* nearest, int64_t neighbours,
                 double scale, int64_t min_size, int threads, int64_t* labels) {
  const int64_t count = static_cast<int64_t>(points.size());
  const int64_t near = std::min(neighbours, kNear);
  const int bits = bit_count(count);
  std::vector<Feature> features(count);
  std::vector<Keyed> pairs(count * near);
  std::vector<double> areas(count);
  parallel_for(count, kAtOnce / 16, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t* others = nearest + i * neighbours;
      Point<double> mean = {0, 0, 0};
      for (int64_t j = 0; j < neighbours; ++j) mean = mean + (points[others[j]] - points[i]);
      mean = mean / static_cast<double>(neighbours);
      std::array<double, 6> sums = {};
      for (int64_t j = 0; j < neighbours; ++j) {
        const Point<double> d = points[others[j]] - points[i] - mean;
        const double products[] = {d.x * d.x, d.x * d.y, d.x * d.z,
                                   d.y * d.y, d.y * d.z, d.z * d.z};
        for (int s = 0; s < 6; ++s) sums[s] += products[s];
      }
      const auto [x, y, z] = flattest(sums);
      const double half = std::sqrt(0.5);
      features[i] = {half * x * x, half * y * y, half * z * z, x * y,      x * z,
                     y * z,        colors[i].x,  colors[i].y,  colors[i].z};
      areas[i] = kPi * squared_distances[i * neighbours + near - 1] / static_cast<double>(near - 1);
      for (int64_t j = 0; j < near; ++j) pairs[i * near + j] = edge_key(i, others[j], bits);
    }
  });
  std::vector<double> sorted(areas);
  std::nth_element(sorted.begin(), sorted.begin() + count / 2, sorted.end());
  const double median = sorted[count / 2];
  for (double& area : areas) {
    area = median > 0 ? std::min(std::max(area, median / kSparse), kSparse * median) : 1;
  }
  std::vector<Edge> edges = distinct_edges(pairs, bits, threads);
  std::vector<double> lengths(edges.size());
  for (size_t i = 0; i < edges.size(); ++i) {
    const Point<double> way = points[edges[i].to] - points[edges[i].from];
    const double side = std::sqrt(std::sqrt(areas[edges[i].from] * areas[edges[i].to]));
    const double distance = std::sqrt(dot(way, way));
    lengths[i] = side * std::min(1.0, side / std::max(distance, side * 1e-3)) * kShare;
  }
  Regions regions(features, std::move(areas), std::move(edges), std::move(lengths));
  regions.merge(scale, min_size);
  number_segments(regions, count, labels);
}

}  // namespace

// labels [N] of vertices [N, 3], numbered in the order of their first vertices, for triangles
// faces [F, 3]. Weights are squared where the surface is convex. Normals are the faces' cross
// products, added and brought to length 1, and equal edges come in the order of their vertices'
// numbers. As ScanNet's own program takes them, normals are the mean of the faces' unit normals,
// whatever its length, in float32, every side of every triangle is an edge, so most occur twice,
// and equal ones come in the order of the faces.
template <typename T>
void mesh_superpoints(Array<const T> vertices, Array<const int64_t> faces, double k,
                      int64_t min_size, bool as_scannet, int threads, Array<int64_t> labels) {
  const int64_t num_vertices = vertices.shape(0), num_faces = faces.shape(0);
  const auto work = [&](auto graph_of, auto weight) {
    const auto points = points_of<decltype(weight)>("vertices", vertices.data, num_vertices);
    check_rows("face", faces, num_vertices);
    segment(graph_of(points, faces.data, num_faces, threads), num_vertices, k, min_size, threads,
            labels.data);
  };
  if (as_scannet) {
    work(scannet_graph, float());
  } else {
    work(area_graph, double());
  }
}

// labels [N] of points [N, 3] with normals [N, 3] and edges [E, 2], weighed in float32 as ScanNet's
// program does; edges of equal weight come in their order.
template <typename T>
void graph_superpoints(Array<const T> points, Array<const T> normals, Array<const int64_t> edges,
                       double k, int64_t min_size, int threads, Array<int64_t> labels) {
  const int64_t num_points = points.shape(0), num_edges = edges.shape(0);
  const auto places = points_of<float>("points", points.data, num_points);
  const auto directions = points_of<float>("normals", normals.data, num_points);
  check_rows("edge", edges, num_points);
  Graph<float> graph;
  for (int64_t i = 0; i < num_edges; ++i) {
    graph.edges.push_back(
        {static_cast<int32_t>(edges[2 * i]), static_cast<int32_t>(edges[2 * i + 1])});
    graph.weights.push_back(scannet_weight(places, directions, graph.edges.back()));
  }
  segment(graph, num_points, k, min_size, threads, labels.data);
}

// labels [N] of points [N, 3] with colors [N, 3], from the mergers of regions.h; scale is a length.
// Each point has the normal of the plane through its nearest `neighbours`, itself counted.
template <typename T>
void cloud_superpoints(Array<const T> points, Array<const T> colors, int64_t neighbours,
                       double scale, int64_t min_size, int threads, Array<int64_t> labels) {
  const int64_t num_points = points.shape(0);
  // In float32 rounding would choose among neighbours that are almost equally near.
  static_assert(sizeof(Point<double>) == 3 * sizeof(double));
  const auto points64 = points_of<double>("points", points.data, num_points);
  if (num_points < 2) {
    std::fill_n(labels.data, num_points, 0);
    return;
  }
  const double* at = reinterpret_cast<const double*>(points64.data());
  std::vector<double> distances(num_points * neighbours);
  std::vector<int64_t> nearest(num_points * neighbours);
  knn(at, num_points, at, num_points, neighbours, threads, distances.data(), nearest.data());
  merge_cloud(points64, points_of<double>("colors", colors.data, num_points).data(),
              distances.data(), nearest.data(), neighbours, scale, min_size, threads, labels);
}

REFER_OP(mesh_superpoints, mesh_superpoints, float, double)
REFER_OP(graph_superpoints, graph_superpoints, float, double)
REFER_OP(cloud_superpoints, cloud_superpoints, float, double)

}  // namespace refer
