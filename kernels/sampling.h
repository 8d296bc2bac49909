#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace memlane {

class CpuExec;

/// How a token is chosen from logits. The order is that of Hugging Face's generate: repetition penalty, temperature,
/// top-k, top-p.
struct Draw {
  float temperature = 0;         ///< 0: greedy, the token with the greatest logit; otherwise logits are divided by it
  std::size_t top_k = 0;         ///< only the k greatest; 0: all
  float top_p = 1;               ///< only the greatest that together reach this probability; 1: all
  float repetition_penalty = 1;  ///< logits of tokens seen are divided (positive) or multiplied (negative) by it
  friend bool operator==(const Draw&, const Draw&) = default;
};

/// Instead of a token: a logit is NaN.
inline constexpr std::int32_t kNotANumber = -1;

/// Probabilities are counted in this part of the greatest one, rounded down. Sums of whole numbers do not depend on
/// their order, so a token follows from what was given alone, on every device whose exponential agrees. 2^24 of them
/// fit 64 bits.
inline constexpr float kProbabilityUnits = 0x1p39F;

/// Words of a set of tokens: bit id % 32 of word id / 32 is set if the token is in it.
constexpr std::size_t token_set_words(std::size_t vocab) {
  return (vocab + 31) / 32;
}

/// A probability in (0, 1) in units of 2^-64; at least one.
inline std::uint64_t in_64_bits(float probability) {
  return std::max<std::uint64_t>(1, static_cast<std::uint64_t>(static_cast<double>(probability) * 0x1p64));
}

/// The next token, or kNotANumber. Of equal logits that of the smaller id comes first.
/// logits: [vocab], 1 ... 2^24; seen: [token_set_words(vocab)], read if there is a repetition penalty; uniform: a
/// random number in units of 2^-64, which decides unless the choice is greedy.
std::int32_t choose_token(CpuExec& exec, std::span<const float> logits, const Draw& draw,
                          std::span<const std::uint32_t> seen, std::uint64_t uniform);

}  // namespace memlane
