#include "kernels/sampling.h"

#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/exec.h"

namespace memlane {

namespace {

/// A token that may be chosen. Candidates are never sorted: the one at some sum of weights is found by cutting again
/// and again the range in which it lies.
struct Candidate {
  std::uint64_t order;   // smaller for a greater score, and of equal scores for a smaller id
  std::uint64_t weight;  // probability, or 1 while candidates are only counted
};

/// All bits if the highest one is set. Logits are positive or negative at random, which branches would stumble over.
std::uint32_t spread_sign(std::uint32_t bits) {
  return static_cast<std::uint32_t>(static_cast<std::int32_t>(bits) >> 31);
}

/// A whole number in the order of the floats; -0 is +0.
std::uint32_t ordered(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x + 0.0F);
  return bits ^ (spread_sign(bits) | 0x80000000U);
}

std::uint64_t order_of(float score, std::size_t id) {
  return static_cast<std::uint64_t>(~ordered(score)) << 32 | id;
}

float score_of(std::uint64_t order) {
  const auto key = ~static_cast<std::uint32_t>(order >> 32);
  return std::bit_cast<float>(key ^ (~spread_sign(key) | 0x80000000U));
}

std::int32_t id_of(std::uint64_t order) {
  return static_cast<std::int32_t>(order & 0xffffffffU);
}

__extension__ using Wide = unsigned __int128;

/// The part of a sum below which a random number falls.
std::uint64_t drawn_goal(std::uint64_t uniform, std::uint64_t total) {
  return static_cast<std::uint64_t>((static_cast<Wide>(uniform) * total) >> 64);
}

/// What is exceeded as soon as a probability of top_p is reached.
std::uint64_t top_p_goal(float top_p, std::uint64_t total) {
  return static_cast<std::uint64_t>((static_cast<Wide>(in_64_bits(top_p)) * total - 1) >> 64);
}

/// Of orders, both included.
struct Range {
  std::uint64_t first = std::numeric_limits<std::uint64_t>::max(), last = 0;
  void add(std::uint64_t order) {
    first = std::min(first, order);
    last = std::max(last, order);
  }
};

/// Cuts a range in equal parts and copies the candidates of the one with which the sum of weights exceeds `goal`; goal
/// becomes what of it is left for them. at(i): one of `count` candidates, all in the range; to: room for them, perhaps
/// where they are. Returns how many it copied.
template <class At>
std::size_t narrow(const At& at, std::size_t count, const Range& range, std::uint64_t& goal, Candidate* to) {
  constexpr int kBits = 11;
  const int shift = std::max(0, static_cast<int>(std::bit_width(range.last - range.first)) - kBits);
  std::array<std::uint64_t, 1 << kBits> parts = {};
  for (std::size_t i = 0; i < count; ++i) {
    const Candidate each = at(i);
    parts[(each.order - range.first) >> shift] += each.weight;
  }
  std::size_t part = 0;
  while (parts[part] <= goal) goal -= parts[part++];
  std::size_t copied = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const Candidate each = at(i);
    to[copied] = each;  // counts if it is of that part
    copied += (each.order - range.first) >> shift == part ? 1 : 0;
  }
  return copied;
}

/// The first candidate in their order with which the sum of weights exceeds `goal`, which is below the sum of all.
/// spare: room for all of them.
template <class At>
std::uint64_t first_beyond(const At& at, std::size_t count, const Range& range, std::uint64_t goal, Candidate* spare) {
  count = narrow(at, count, range, goal, spare);
  while (true) {
    Range left;
    for (std::size_t i = 0; i < count; ++i) left.add(spare[i].order);
    if (left.first == left.last) return left.first;
    count = narrow([spare](std::size_t i) { return spare[i]; }, count, left, goal, spare);
  }
}

/// Candidates with their probabilities, and the sum of these.
struct Weighed {
  std::span<Candidate> candidates;
  Range range = {};
  std::uint64_t total = 0;
  std::size_t kept = 0;

  void add(const Candidate& candidate) {
    candidates[kept++] = candidate;  // never behind what is read of them
    range.add(candidate.order);
    total += candidate.weight;
  }
  std::uint64_t first_beyond(std::uint64_t goal, Candidate* spare) const {
    return memlane::first_beyond([this](std::size_t i) { return candidates[i]; }, kept, range, goal, spare);
  }
  /// Only those up to `last` in their order.
  Weighed until(std::uint64_t last) const {
    Weighed result{candidates};
    for (const Candidate& each : candidates.first(kept)) {
      if (each.order <= last) result.add(each);
    }
    return result;
  }
};

/// In units of probability. The best score is taken off first, so that no temperature is too small to divide by.
std::uint64_t weight_of(float score, float best, float temperature) {
  const float x = score == best ? 0.0F : (score - best) / temperature;  // equal infinities, too
  return x > -28 ? static_cast<std::uint64_t>(std::exp(x) * kProbabilityUnits) : 0;
}

}  // namespace

std::int32_t choose_token(CpuExec& exec, std::span<const float> logits, const Draw& draw,
                          std::span<const std::uint32_t> seen, std::uint64_t uniform) {
  const std::size_t vocab = logits.size();
  const float penalty = draw.repetition_penalty;
  MEMLANE_EXPECTS(vocab >= 1 && vocab <= (std::size_t{1} << 24));
  MEMLANE_EXPECTS(penalty == 1 || seen.size() == token_set_words(vocab));
  const auto order_at = [&](std::size_t id) {
    float score = logits[id];
    const bool penalised = penalty != 1 && (seen[id / 32] >> (id % 32) & 1) != 0;
    if (penalised) score = score > 0 ? score / penalty : score * penalty;
    return order_of(score, id);
  };

  Range range;
  bool numbers = true;
  for (std::size_t id = 0; id < vocab; ++id) {
    numbers = numbers && !std::isnan(logits[id]);
    range.add(order_at(id));
  }
  if (!numbers) return kNotANumber;
  if (draw.temperature == 0) return id_of(range.first);

  ScratchLayout layout(exec.shared_scratch(2 * (vocab + 4) * sizeof(Candidate)));
  auto* const room = layout.take<Candidate>(vocab);
  auto* const spare = layout.take<Candidate>(vocab);
  if (draw.top_k > 0 && draw.top_k < vocab) {
    const auto counted = [&](std::size_t id) { return Candidate{order_at(id), 1}; };
    range.last = first_beyond(counted, vocab, range, draw.top_k - 1, spare);
  }
  Weighed weighed{{room, vocab}};
  for (std::size_t id = 0; id < vocab; ++id) {
    const std::uint64_t order = order_at(id);
    if (order > range.last) continue;
    const std::uint64_t weight = weight_of(score_of(order), score_of(range.first), draw.temperature);
    if (weight > 0) weighed.add({order, weight});
  }
  if (draw.top_p < 1) weighed = weighed.until(weighed.first_beyond(top_p_goal(draw.top_p, weighed.total), spare));
  return id_of(weighed.first_beyond(drawn_goal(uniform, weighed.total), spare));
}

}  // namespace memlane
