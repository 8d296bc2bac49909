#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "kernels/exec.h"
#include "kernels/sampling.h"

namespace memlane {

/// How tokens are chosen from logits: see Draw.
struct SamplerOptions {
  float temperature = 0;         ///< 0: greedy, the most likely token; otherwise logits are divided by it
  std::size_t top_k = 0;         ///< only the k most likely tokens; 0: all
  float top_p = 1;               ///< only the most likely tokens that together reach this probability; 1: all
  float repetition_penalty = 1;  ///< tokens that occurred become less likely; 1: none
  std::uint64_t seed = 0;        ///< same seed, same tokens

  Draw draw() const { return {temperature, top_k, top_p, repetition_penalty}; }
  /// Throws InputError, naming the flag, for a value outside its range.
  void check() const;
};

/// A token that is to be chosen where the logits are: what that takes, and then the token.
struct TokenChoice {
  Draw draw;
  std::span<const std::uint32_t> seen;  ///< [token_set_words(vocab)] if there is a repetition penalty, else empty
  std::uint64_t uniform = 0;            ///< in units of 2^-64
  std::int32_t token = kNotANumber;
};

/// Makes choices for one text, one after the other.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);

  /// Tokens that the text has, for the repetition penalty. Each counts once, however often it is seen.
  void see(std::span<const std::int32_t> ids);

  /// The next choice, among `vocab` tokens; valid until tokens are seen.
  TokenChoice next(std::size_t vocab);
  /// The token that was chosen. Throws InputError if a logit was NaN.
  static std::int32_t chosen(const TokenChoice& choice);

  /// The next choice from logits of the host: [vocab]. Throws likewise.
  std::int32_t sample(CpuExec& exec, std::span<const float> logits);

 private:
  Draw draw_;
  std::mt19937_64 random_;
  std::vector<std::uint32_t> seen_;  // a set of tokens, as far as they were seen
};

}  // namespace memlane
