#pragma once

// Choosing a token as straightforwardly as can be: all candidates are sorted. In the whole numbers that
// kernels/sampling.h counts probabilities in, so that fast kernels can be held to the very token.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/sampling.h"

namespace memlane::reference {

__extension__ using Wide = unsigned __int128;

inline std::int32_t choose_token(const std::vector<float>& logits, const Draw& draw,
                                 const std::vector<std::uint32_t>& seen, std::uint64_t uniform) {
  struct Candidate {
    float score;
    std::int32_t id;
    Wide weight = 0;
  };
  std::vector<Candidate> all;
  for (std::size_t id = 0; id < logits.size(); ++id) {
    float score = logits[id];
    if (std::isnan(score)) return kNotANumber;
    if (draw.repetition_penalty != 1 && (seen[id / 32] >> id % 32 & 1) != 0) {
      score = score > 0 ? score / draw.repetition_penalty : score * draw.repetition_penalty;
    }
    all.push_back({score, static_cast<std::int32_t>(id)});
  }
  std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.id < b.id;
  });
  if (draw.temperature == 0) return all.front().id;
  if (draw.top_k > 0) all.resize(std::min(all.size(), draw.top_k));
  const float best = all.front().score;
  const auto total = [&] {
    Wide sum = 0;
    for (const Candidate& each : all) sum += each.weight;
    return sum;
  };
  for (Candidate& each : all) {
    const float x = each.score == best ? 0 : (each.score - best) / draw.temperature;
    each.weight = static_cast<std::uint64_t>(std::exp(x) * kProbabilityUnits);
  }
  if (draw.top_p < 1) {
    const Wide whole = total();
    Wide reached = 0;
    std::size_t kept = 0;
    while (kept == 0 || reached << 64 < in_64_bits(draw.top_p) * whole) reached += all[kept++].weight;
    all.resize(kept);
  }
  const Wide goal = (uniform * total()) >> 64;
  Wide passed = 0;
  for (const Candidate& each : all) {
    passed += each.weight;
    if (passed > goal) return each.id;
  }
  return kNotANumber;
}

/// A case of the choice that has something of everything: many equal logits or few, zeros of both signs, infinities.
struct RandomChoice {
  std::vector<float> logits;
  std::vector<std::uint32_t> seen;
  Draw draw;
  std::uint64_t uniform = 0;
};

template <class Random>
RandomChoice random_choice(Random& random, std::size_t most_tokens) {
  RandomChoice result;
  const std::size_t vocab = random.size(0, 3) == 0 ? random.size(1, 40) : random.size(1, most_tokens);
  const std::size_t kind = random.size(0, 9);
  const float amplitude = random.size(0, 1) == 0 ? 3.0F : 20.0F;
  for (std::size_t id = 0; id < vocab; ++id) {
    float x = random.between(-amplitude, amplitude);
    if (kind < 4) x = std::round(x * static_cast<float>(kind)) / 4;  // equal ones; all with kind 0
    if (kind == 4 && random.size(0, 5) == 0) x = random.size(0, 1) == 0 ? -INFINITY : 3e38F;
    if (kind == 5 && random.size(0, 50) == 0) x = INFINITY;
    if (random.size(0, 9) == 0) x = random.size(0, 1) == 0 ? 0.0F : -0.0F;
    result.logits.push_back(x);
  }
  result.seen.resize(token_set_words(vocab));
  for (std::uint32_t& word : result.seen) word = random.bits() & random.bits();
  constexpr float kTemperatures[] = {0, 1e-44F, 1e-3F, 0.7F, 1, 1, 1.5F, 30, 1e30F};
  constexpr float kTopP[] = {1, 1, 1e-45F, 0.1F, 0.5F, 0.9F, 0.999F, 0.99999994F};
  constexpr float kPenalties[] = {1, 1, 1.1F, 2, 0.5F, 1e30F};
  result.draw.temperature = kTemperatures[random.size(0, 8)];
  result.draw.top_k = random.size(0, 1) == 0 ? 0 : random.size(1, 2 * vocab);
  if (random.size(0, 2) == 0) result.draw.top_k = random.size(1, 50);
  result.draw.top_p = kTopP[random.size(0, 7)];
  result.draw.repetition_penalty = kPenalties[random.size(0, 5)];
  const std::size_t extreme = random.size(0, 9);
  result.uniform = static_cast<std::uint64_t>(random.bits()) << 32 | random.bits();
  if (extreme == 0) result.uniform = 0;
  if (extreme == 1) result.uniform = ~std::uint64_t{0};
  return result;
}

}  // namespace memlane::reference
