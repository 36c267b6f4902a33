// Region merging by Mumford and Shah's energy (Koepfler, Lopez and Morel 1994).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <numeric>
#include <queue>
#include <unordered_map>
#include <utility>
#include <vector>

#include "segments.h"

namespace refer {

// Normal and colour; see superpoints.cpp.
constexpr int kFeatures = 9;
using Feature = std::array<double, kFeatures>;

// Regions of a graph, at first its vertices. The energy is the sum over vertices of area times
// |feature - its region's mean|^2, plus scale times the length of all borders. A border's cost is
// the scale from which on removing it lowers the energy; the cheapest is removed first.
class Regions {
 public:
  Regions(const std::vector<Feature>& features, std::vector<double> areas, std::vector<Edge> edges,
          std::vector<double> lengths)
      : areas_(std::move(areas)),
        sums_(features),
        parent_(features.size()),
        sizes_(features.size(), 1),
        ages_(features.size(), 0),
        borders_of_(features.size()),
        ends_(std::move(edges)),
        lengths_(std::move(lengths)),
        costs_(ends_.size()),
        checked_(ends_.size()) {
    std::iota(parent_.begin(), parent_.end(), 0);
    for (size_t i = 0; i < features.size(); ++i) {
      for (double& value : sums_[i]) value *= areas_[i];
    }
    border_between_.reserve(2 * ends_.size());
    std::vector<Entry> entries;
    entries.reserve(ends_.size());
    for (int32_t i = 0; i < static_cast<int32_t>(ends_.size()); ++i) {
      for (const int32_t end : {ends_[i].from, ends_[i].to}) borders_of_[end].push_back(i);
      border_between_[key(ends_[i].from, ends_[i].to)] = i;
      costs_[i] = cost(i);
      entries.push_back({costs_[i], i});
    }
    queue_ = Queue(std::greater<Entry>(), std::move(entries));
  }

  // Removes borders that cost at most `scale`, then those of regions with fewer than `least`
  // vertices. Costs are brought up to date when they are next in line, and count as the same
  // within kSlack: a region with many neighbours need not visit all of them at every merger.
  void merge(double scale, int64_t least) {
    while (!queue_.empty()) {
      const auto [known, border] = queue_.top();
      queue_.pop();
      if (lengths_[border] == 0 || known != costs_[border]) continue;
      const int32_t a = find(ends_[border].from), b = find(ends_[border].to);
      if (known > scale && sizes_[a] >= least && sizes_[b] >= least) continue;
      if (checked_[border] != ages_[a] + ages_[b]) {
        update(border);
        if (costs_[border] > known * kSlack) continue;
      }
      join(a, b, border);
    }
  }

  int32_t find(int32_t vertex) {
    while (parent_[vertex] != vertex) {
      parent_[vertex] = parent_[parent_[vertex]];
      vertex = parent_[vertex];
    }
    return vertex;
  }

 private:
  using Entry = std::pair<double, int32_t>;
  using Queue = std::priority_queue<Entry, std::vector<Entry>, std::greater<Entry>>;
  static constexpr double kSlack = 1.05;

  static uint64_t key(int32_t a, int32_t b) {
    return static_cast<uint64_t>(std::min(a, b)) << 32 | static_cast<uint32_t>(std::max(a, b));
  }

  double cost(int32_t border) {
    const int32_t a = find(ends_[border].from), b = find(ends_[border].to);
    double square = 0;
    for (int i = 0; i < kFeatures; ++i) {
      const double step = sums_[a][i] / areas_[a] - sums_[b][i] / areas_[b];
      square += step * step;
    }
    checked_[border] = ages_[a] + ages_[b];
    return areas_[a] * areas_[b] / (areas_[a] + areas_[b]) * square / lengths_[border];
  }

  void update(int32_t border) {
    costs_[border] = cost(border);
    queue_.push({costs_[border], border});
  }

  // Moves the borders of the region with fewer ones.
  void join(int32_t a, int32_t b, int32_t between) {
    if (borders_of_[a].size() < borders_of_[b].size()) std::swap(a, b);
    parent_[b] = a;
    areas_[a] += areas_[b];
    sizes_[a] += sizes_[b];
    ages_[a] += ages_[b] + 1;
    for (int i = 0; i < kFeatures; ++i) sums_[a][i] += sums_[b][i];
    lengths_[between] = 0;
    for (const int32_t border : std::exchange(borders_of_[b], {})) {
      if (lengths_[border] == 0) continue;
      const int32_t one = find(ends_[border].from), other = find(ends_[border].to);
      const auto [place, is_new] = border_between_.try_emplace(key(one, other), border);
      if (is_new || lengths_[place->second] == 0) {
        place->second = border;
        borders_of_[a].push_back(border);
        update(border);
      } else {
        lengths_[place->second] += std::exchange(lengths_[border], 0);
        update(place->second);
      }
    }
  }

  std::vector<double> areas_;
  std::vector<Feature> sums_;
  std::vector<int32_t> parent_;
  std::vector<int64_t> sizes_, ages_;
  std::vector<std::vector<int32_t>> borders_of_;
  std::vector<Edge> ends_;
  std::vector<double> lengths_, costs_;
  std::vector<int64_t> checked_;
  std::unordered_map<uint64_t, int32_t> border_between_;
  Queue queue_;
};

}  // namespace refer
