#include "apps/generation.h"

#include <algorithm>
#include <limits>

#include "apps/count_option.h"
#include "apps/interrupt.h"
#include "apps/value_option.h"
#include "kernels/stopwatch.h"

namespace memlane {

namespace {
void add_sampler_options(CLI::App& app, SamplerOptions& options) {
  add_number(app, "--temperature", options.temperature,
             "0 for the most likely token each time; larger values vary more");
  add_count(app, "--sample-top-k", options.top_k, "Sample from the so many most likely tokens; 0 for all");
  add_number(app, "--top-p", options.top_p, "Sample from the most likely tokens that together have this probability");
  add_number(app, "--repetition-penalty", options.repetition_penalty,
             "Above 1: tokens that occurred become less likely");
  add_count(app, "--seed", options.seed, "Same seed, same text", {.most = std::numeric_limits<std::size_t>::max()});
}

}  // namespace

void GenerationOptions::add_to(CLI::App& app) {
  add_count(app, "--max-tokens", max_tokens, "Tokens to generate at most", {.least = 1});
  app.add_flag("--ignore-eos", ignore_eos, "Go on after the end-of-text token");
  add_sampler_options(app, sampler);
  app.add_flag("--json", json, "Print one JSON object instead of text");
}

Generated generate(Session& session, const Model& model, const Tokenizer& tokenizer,
                   std::span<const std::int32_t> prompt, std::size_t last_context_length,
                   const GenerationOptions& options, bool at_start_of_text,
                   const std::function<void(std::string_view)>& emit) {
  const std::atomic<bool>& interrupted = interrupt_flag();
  const std::vector<int>& eos = model.config.eos_token_ids;
  Sampler sampler(options.sampler);
  TextStream stream(tokenizer, at_start_of_text);
  Generated result;
  const auto add_text = [&](const std::string& text) {
    result.text += text;
    if (!text.empty()) emit(text);
  };

  Stopwatch watch;
  std::int32_t id = session.next(prompt, last_context_length, sampler);
  result.prompt_seconds = watch.seconds();
  watch.restart();
  result.stop = "length";
  while (true) {
    if (!options.ignore_eos && std::find(eos.begin(), eos.end(), id) != eos.end()) {
      result.stop = "eos";
      break;
    }
    result.ids.push_back(id);
    // A model may have more ids than its tokenizer has pieces; those have no text.
    if (static_cast<std::size_t>(id) < tokenizer.size()) add_text(stream.push(id));
    if (result.ids.size() == options.max_tokens) break;
    if (interrupted) {
      result.stop = "interrupted";
      break;
    }
    try {
      id = session.next({&id, 1}, 1, sampler);
    } catch (const Interrupted&) {  // what is there is an answer, too
      result.stop = "interrupted";
      break;
    }
  }
  add_text(stream.finish());
  result.seconds = watch.seconds();
  return result;
}

nlohmann::json to_json(const Generated& generated, std::size_t prompt_tokens) {
  return {{"text", generated.text},
          {"ids", generated.ids},
          {"stop", generated.stop},
          {"prompt_tokens", prompt_tokens},
          {"prompt_seconds", generated.prompt_seconds},
          {"generated_tokens", generated.ids.size()},
          {"generation_seconds", generated.seconds}};
}

void require_vocabulary(const Tokenizer& tokenizer, const ModelConfig& config, const std::string& model) {
  if (tokenizer.size() > config.vocab_size) {
    input_error(
        "{}: tokenizer.model has {} pieces, config.json says vocab_size {}; use the tokenizer that came with the model",
        model, tokenizer.size(), config.vocab_size);
  }
}

}  // namespace memlane
