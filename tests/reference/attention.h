#pragma once

#include <numeric>

#include "tests/reference/numbers.h"

namespace memlane::reference {

/// Keys and values of one key/value head.
struct Entries {
  Matrix keys;
  Matrix values;

  void add(Row key, Row value) {
    keys.push_back(std::move(key));
    values.push_back(std::move(value));
  }
  void append(const Entries& other) {
    keys.insert(keys.end(), other.keys.begin(), other.keys.end());
    values.insert(values.end(), other.values.begin(), other.values.end());
  }
  /// Those with the given indices.
  Entries chosen(const std::vector<std::size_t>& ids) const {
    Entries result;
    for (const std::size_t id : ids) result.add(keys[id], values[id]);
    return result;
  }
  /// The first `count`.
  Entries first(std::size_t count) const {
    std::vector<std::size_t> ids(count);
    std::iota(ids.begin(), ids.end(), std::size_t{0});
    return chosen(ids);
  }
};

/// What the softmax over a set of entries consists of: sum = sum_j exp(s_j - max) v_j, weight = sum_j exp(s_j - max).
struct Partial {
  Row sum;
  double max = -std::numeric_limits<double>::infinity();
  double weight = 0;
  Row output() const {
    Row result(sum);
    for (double& x : result) x /= weight;
    return result;
  }
};

/// One query over all entries, scores scale * q . k.
inline Partial partial_attention(const Row& query, const Entries& entries, double scale) {
  Partial partial;
  partial.sum.assign(query.size(), 0.0);
  for (const Row& key : entries.keys) partial.max = std::max(partial.max, scale * dot(query, key));
  for (std::size_t j = 0; j < entries.keys.size(); ++j) {
    const double weight = std::exp(scale * dot(query, entries.keys[j]) - partial.max);
    partial.weight += weight;
    for (std::size_t d = 0; d < query.size(); ++d) partial.sum[d] += weight * entries.values[j][d];
  }
  return partial;
}

/// Scores and values of some of the entries of a softmax. rounds: their weights, relative to the greatest among them,
/// are rounded to bfloat16.
struct ScoredValues {
  Row scores;
  Matrix values;
  bool rounds = false;

  void add(double score, const Row& value) {
    scores.push_back(score);
    values.push_back(value);
  }
};

/// All values weighed by the softmax of all scores.
inline Row softmax_average(const std::vector<ScoredValues>& parts) {
  const auto max_of = [](const Row& scores) { return *std::max_element(scores.begin(), scores.end()); };
  double max = -std::numeric_limits<double>::infinity(), total = 0;
  for (const ScoredValues& part : parts) max = std::max(max, part.scores.empty() ? max : max_of(part.scores));
  Row average(parts.front().values.front().size(), 0.0);
  for (const ScoredValues& part : parts) {
    for (std::size_t i = 0; i < part.scores.size(); ++i) {
      const double own_max = max_of(part.scores);
      const double own = std::exp(part.scores[i] - own_max);
      const double weight = (part.rounds ? rounded(own, DType::bf16) : own) * std::exp(own_max - max);
      total += weight;
      for (std::size_t d = 0; d < average.size(); ++d) average[d] += weight * part.values[i][d];
    }
  }
  for (double& x : average) x /= total;
  return average;
}

/// One softmax over what the query sees locally and in memory.
inline Row attention(const Row& query, const Entries& local, const Entries& memory, double scale) {
  Entries all = local;
  all.append(memory);
  return partial_attention(query, all, scale).output();
}

/// The k entries with the largest scores, ascending; of equal scores the smaller ids.
inline std::vector<std::size_t> top_k(const Row& scores, std::size_t k) {
  std::vector<std::size_t> ids(scores.size());
  std::iota(ids.begin(), ids.end(), std::size_t{0});
  std::stable_sort(ids.begin(), ids.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  ids.resize(std::min(k, ids.size()));
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace memlane::reference
