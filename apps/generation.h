#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/sampler.h"
#include "runtime/session.h"
#include "runtime/tokenizer.h"

namespace memlane {

/// Options of commands that generate text.
struct GenerationOptions {
  std::size_t max_tokens = 128;
  bool ignore_eos = false;
  SamplerOptions sampler;
  bool json = false;

  void add_to(CLI::App& app);
};

struct Generated {
  std::string text;
  std::vector<std::int32_t> ids;  ///< the end-of-text token not included
  std::string stop;               ///< "eos", "length" or "interrupted"
  double prompt_seconds = 0;
  double seconds = 0;  ///< of generation alone
};

/// Calls the session with the prompt, then generates. Text goes to `emit` as soon as its characters are complete.
/// last_context_length: of the prompt's call. at_start_of_text: the generated text begins a text of its own.
Generated generate(Session& session, const Model& model, const Tokenizer& tokenizer,
                   std::span<const std::int32_t> prompt, std::size_t last_context_length,
                   const GenerationOptions& options, bool at_start_of_text,
                   const std::function<void(std::string_view)>& emit);

/// What a script reads about a generation.
nlohmann::json to_json(const Generated& generated, std::size_t prompt_tokens);

/// Throws InputError if the tokenizer has ids that the model does not.
void require_vocabulary(const Tokenizer& tokenizer, const ModelConfig& config, const std::string& model);

}  // namespace memlane
