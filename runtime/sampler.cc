#include "runtime/sampler.h"

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

Sampler::Sampler(const SamplerOptions& options) : draw_(options.draw()), random_(options.seed) {
  options.check();
}

void Sampler::see(std::span<const std::int32_t> ids) {
  if (draw_.repetition_penalty == 1) return;
  for (const std::int32_t id : ids) {
    const auto token = static_cast<std::size_t>(id);
    if (seen_.size() <= token / 32) seen_.resize(token / 32 + 1);
    seen_[token / 32] |= 1U << token % 32;
  }
}

TokenChoice Sampler::next(std::size_t vocab) {
  TokenChoice choice;
  choice.draw = draw_;
  if (draw_.repetition_penalty != 1) {
    MEMLANE_EXPECTS(seen_.size() <= token_set_words(vocab));
    seen_.resize(token_set_words(vocab));
    choice.seen = seen_;
  }
  if (draw_.temperature > 0) choice.uniform = random_();
  return choice;
}

std::int32_t Sampler::chosen(const TokenChoice& choice) {
  if (choice.token == kNotANumber) {  // any token would be as wrong as another
    input_error(
        "the model's logits: expected numbers, found NaN; its weights are damaged, or too large for the type computed "
        "in: check the checkpoint, or try --compute float32");
  }
  return choice.token;
}

std::int32_t Sampler::sample(CpuExec& exec, std::span<const float> logits) {
  TokenChoice choice = next(logits.size());
  choice.token = choose_token(exec, logits, choice.draw, choice.seen, choice.uniform);
  return chosen(choice);
}

}  // namespace memlane
