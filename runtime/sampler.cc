#include "runtime/sampler.h"

#include <algorithm>
#include <cmath>

#include "kernels/error.h"

namespace memlane {

void SamplerOptions::check() const {
  if (!(temperature >= 0) || std::isinf(temperature)) {
    input_error("--temperature {}: expected a finite number, 0 (greedy) or more", temperature);
  }
  if (!(top_p > 0 && top_p <= 1)) input_error("--top-p {}: expected a probability above 0, at most 1", top_p);
  if (!(repetition_penalty > 0) || std::isinf(repetition_penalty)) {
    input_error("--repetition-penalty {}: expected a finite number above 0 (1 for none)", repetition_penalty);
  }
}

Sampler::Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {
  options_.check();
}

std::int32_t Sampler::sample(std::span<const float> logits, std::span<const std::int32_t> seen) {
  MEMLANE_EXPECTS(!logits.empty());
  // Sorting is undefined with them, and any token would be as wrong as another.
  if (std::any_of(logits.begin(), logits.end(), [](float logit) { return std::isnan(logit); })) {
    input_error(
        "the model's logits: expected numbers, found NaN; its weights are damaged, or too large for the type computed "
        "in: check "
        "the checkpoint, or try --compute float32");
  }
  candidates_.clear();
  for (std::size_t id = 0; id < logits.size(); ++id) candidates_.push_back({logits[id], static_cast<std::int32_t>(id)});
  if (options_.repetition_penalty != 1) penalise(seen);
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.id < b.id;
  };
  if (options_.temperature == 0) return std::min_element(candidates_.begin(), candidates_.end(), likelier)->id;

  std::sort(candidates_.begin(), candidates_.end(), likelier);
  keep_top_k();
  const float best = candidates_.front().score;
  // From here on a weight. The best logit is taken off first, so that no temperature is too small to divide by.
  for (Candidate& candidate : candidates_) candidate.score = std::exp((candidate.score - best) / options_.temperature);
  keep_top_p();
  double total = 0;
  for (const Candidate& candidate : candidates_) total += static_cast<double>(candidate.score);
  double rest = uniform() * total;
  for (const Candidate& candidate : candidates_) {
    rest -= static_cast<double>(candidate.score);
    if (rest < 0) return candidate.id;
  }
  return candidates_.back().id;
}

void Sampler::penalise(std::span<const std::int32_t> seen) {
  std::vector<bool> done(candidates_.size(), false);
  for (const std::int32_t id : seen) {
    const auto index = static_cast<std::size_t>(id);
    if (done[index]) continue;  // once, however often it was seen
    done[index] = true;
    float& score = candidates_[index].score;
    score = score > 0 ? score / options_.repetition_penalty : score * options_.repetition_penalty;
  }
}

void Sampler::keep_top_k() {
  if (options_.top_k > 0) candidates_.resize(std::min(candidates_.size(), options_.top_k));
}

void Sampler::keep_top_p() {
  if (options_.top_p >= 1) return;
  double total = 0;
  for (const Candidate& candidate : candidates_) total += static_cast<double>(candidate.score);
  double reached = 0;
  std::size_t kept = 0;
  while (kept < candidates_.size() && reached < static_cast<double>(options_.top_p) * total) {
    reached += static_cast<double>(candidates_[kept++].score);
  }
  candidates_.resize(std::max<std::size_t>(kept, 1));
}

/// In [0, 1), from the top 53 bits: the same on every platform, as the standard's distributions need not be.
double Sampler::uniform() {
  return static_cast<double>(random_() >> 11) * 0x1p-53;
}

}  // namespace memlane
