#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace memlane {

/// How the next token is chosen from logits. The order is that of Hugging Face's generate: repetition penalty,
/// temperature, top-k, top-p.
struct SamplerOptions {
  float temperature = 0;  ///< 0: greedy, the most likely token; otherwise logits are divided by it
  std::size_t top_k = 0;  ///< only the k most likely tokens; 0: all
  float top_p = 1;        ///< only the most likely tokens that together reach this probability; 1: all
  float repetition_penalty =
      1;  ///< logits of tokens seen before are divided (positive) or multiplied (negative) by it; 1: none
  std::uint64_t seed = 0;  ///< same seed, same tokens

  /// Throws InputError, naming the flag, for a value outside its range.
  void check() const;
};

class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);

  /// The next token. logits: [vocab]; seen: the tokens so far, for the repetition penalty. Of equally likely tokens the
  /// one with the smaller id comes first. Throws InputError if a logit is NaN.
  std::int32_t sample(std::span<const float> logits, std::span<const std::int32_t> seen);

 private:
  struct Candidate {
    float score;
    std::int32_t id;
  };
  void penalise(std::span<const std::int32_t> seen);
  void keep_top_k();
  void keep_top_p();
  double uniform();

  SamplerOptions options_;
  std::mt19937_64 random_;
  std::vector<Candidate> candidates_;
};

}  // namespace memlane
