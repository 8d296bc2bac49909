#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/list_catalogue.h"
#include "kernels/cpu/stored_scores.h"
#include "kernels/key_lists.h"

namespace memlane::list_search {

// Query rows of an item, which share the keys that are scored again: as many as fit into kItemBytes of what each
// chooses and finds. Of them so many at once are compared with the means of lists, and scored with the keys of a list,
// as fit into kWeightBytes of weights of lists.
inline constexpr std::size_t kMostRows = 1024, kItemBytes = std::size_t{48} << 20;
inline constexpr std::size_t kLeastRows = 16, kMostAtOnce = 128, kWeightBytes = std::size_t{4} << 20;

struct Candidate {
  float score;
  std::uint32_t entry;
  std::uint32_t chosen;  // list it was found in
  float scanned_score;
};

/// A list that a row scans, and what it found there.
struct Chosen {
  std::uint32_t place;  // in the catalogue
  std::uint32_t chunk;  // of the kv head
  std::uint32_t list;   // of the chunk
  std::uint32_t first;  // number of its first key among those that the row scans
  float max = kNothing;
  float weight = 0;  // sum of exp(scale * score - max)
};

/// Rows that are compared with the means of lists at once. With an estimate of what is not chosen, whose weights are
/// needed to the end, an item has no more.
inline std::size_t most_at_once(const Catalogue& catalogue, std::size_t head_dim, bool estimates) {
  const std::size_t shifts = estimates ? catalogue.chunks.size() * filled(head_dim) : 0;
  return std::clamp(kWeightBytes / ((2 * catalogue.width() + shifts) * sizeof(float) + 1), kLeastRows, kMostAtOnce);
}

/// Rows of an item.
inline std::size_t most_rows(const Catalogue& catalogue, std::size_t head_dim, const ListSearch& search,
                             std::size_t candidates, bool estimates) {
  if (estimates) return most_at_once(catalogue, head_dim, estimates);
  const std::size_t lists = std::min(search.probes, catalogue.present) * (2 * sizeof(Chosen));
  const std::size_t found = candidates * 2 * (sizeof(Candidate) + sizeof(StoredScores::Request));
  return std::clamp<std::size_t>(kItemBytes / (lists + found), 1, kMostRows);
}

}  // namespace memlane::list_search
