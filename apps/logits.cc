#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/asked_memory.h"
#include "apps/commands.h"
#include "apps/documents.h"
#include "apps/generation.h"
#include "apps/interrupt.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "memory/key_index.h"
#include "runtime/safetensors.h"
#include "runtime/session.h"

namespace memlane {

namespace {

struct LogitsOptions {
  ModelOptions model;
  std::optional<std::string> ids, text, then_ids, memory;
  AskedDocuments documents;
  std::string output;
  bool json = false;
};

std::vector<std::int32_t> prompt_ids(const LogitsOptions& options, const ModelConfig& config) {
  if (options.ids.has_value() == options.text.has_value())
    input_error("--ids, --text: expected one of them as the prompt, found {}", options.ids ? "both" : "none");
  if (options.ids) return read_ids(*options.ids, config.vocab_size);
  require_utf8("--text", *options.text);
  const Tokenizer tokenizer = Tokenizer::open(options.model.model);
  require_vocabulary(tokenizer, config, options.model.model);
  // As ask does, a text put to a memory gets no BOS; a text by itself does.
  const std::vector<std::int32_t> ids = tokenizer.encode(*options.text, !options.memory);
  if (ids.empty()) input_error("--text: expected a text, found nothing but spaces");
  return ids;
}

/// Refuses, before any work, to write where that cannot succeed or would replace what the run reads.
void check_output(const LogitsOptions& options) {
  const std::filesystem::path output = options.output;
  std::error_code ignored;
  const std::filesystem::path folder = output.has_parent_path() ? output.parent_path() : ".";
  if (!std::filesystem::is_directory(folder, ignored)) {
    input_error("{}: expected its folder to exist, found none; create it first", options.output);
  }
  if (std::filesystem::exists(output, ignored) && !std::filesystem::is_regular_file(output, ignored)) {
    input_error("{}: expected the name of a file to write, found something else of that name; choose another",
                options.output);
  }
  const auto is_output = [&](const std::optional<std::string>& input) {
    return input && std::filesystem::equivalent(*input, output, ignored);
  };
  if (is_output(options.ids) || is_output(options.then_ids) || is_output(options.memory) ||
      (std::filesystem::exists(output, ignored) && std::filesystem::equivalent(options.model.model, folder, ignored))) {
    input_error("{}: expected a file that is not read, found one that is; choose another --output", options.output);
  }
}

nlohmann::json report(const LogitsOptions& options, const Model& model, const Session& session, std::size_t tokens,
                      std::size_t then_tokens) {
  return {{"output", options.output},
          {"tokens", tokens},
          {"then_tokens", then_tokens},
          {"vocab", model.config.vocab_size},
          {"compute", name_of(model.precision.compute)},
          {"weights", name_of(model.precision.weights)},
          {"local_length", session.local_length()},
          {"memory_entries", session.memory_length()}};
}

int write_logits(LogitsOptions options) {
  check_output(options);
  if (!options.memory && !options.documents.words.empty()) {
    input_error("--documents: expected a --memory whose documents they are, found none");
  }
  const ModelConfig config = read_model_config(options.model.model);
  const std::vector<std::int32_t> ids = prompt_ids(options, config);
  const std::vector<std::int32_t> then_ids =
      options.then_ids ? read_ids(*options.then_ids, config.vocab_size) : std::vector<std::int32_t>();
  std::optional<MemoryFile> file;
  std::vector<std::uint32_t> asked;
  if (options.memory) {
    file.emplace(options.documents.open(*options.memory));
    asked = options.documents.choose(*file);
    options.model.take_from(*file);
  }
  CpuExec exec = options.model.make_exec();
  const Lookup lookup = options.model.lookup(ids.size() + (file ? entries_of(*file, asked) : 0));
  if (file && !options.model.last_context_length)
    options.model.last_context_length = std::min(ids.size(), *options.model.window);
  const MemorySettings settings = options.model.settings(config);
  const Precision precision = options.model.precision();
  if (lookup.has_index()) make_key_index(lookup, config.head_dim);  // refused before any work
  const std::size_t tokens = ids.size() + then_ids.size();
  const std::size_t vocab = config.vocab_size;
  require_room(config, settings, precision, lookup,
               {tokens, file ? entries_of(*file, asked) : 0, tokens * vocab * sizeof(float)},
               fmt::format("the logits of {} tokens", tokens), "use a shorter prompt");
  const Model model = load_model(exec, options.model.model, precision, options.model.device_choice());
  std::optional<AskedMemory> memory;
  if (file) {
    // Ids say what they mean; a text must be cut by the tokenizer that the documents were cut by.
    const std::string tokenizer =
        options.text ? Tokenizer::open(options.model.model).fingerprint() : file->header().tokenizer_fingerprint;
    memory.emplace(exec, *file, asked, model, tokenizer, settings, lookup);
  }
  Session session(exec, model, settings, lookup, memory ? memory->seen() : std::vector<const DocumentMemory*>(),
                  memory ? memory->joint() : nullptr);
  session.set_stop_flag(&interrupt_flag());

  std::vector<float> logits(ids.size() * vocab);
  std::vector<float> then_logits(then_ids.size() * vocab);
  session.call(ids, settings.last_context_length, {logits.data(), {ids.size(), vocab}});
  for (std::size_t i = 0; i < then_ids.size(); ++i) {
    session.call({&then_ids[i], 1}, 1, {then_logits.data() + i * vocab, {1, vocab}});
  }
  std::vector<OutputTensor> tensors = {{"logits", {ids.size(), vocab}, std::span<const float>(logits)}};
  if (!then_ids.empty())
    tensors.push_back({"then_logits", {then_ids.size(), vocab}, std::span<const float>(then_logits)});
  write_safetensors(options.output, tensors);
  if (options.json) print_json(report(options, model, session, ids.size(), then_ids.size()));
  return 0;
}

}  // namespace

Subcommand add_logits(CLI::App& program) {
  CLI::App* app =
      program.add_subcommand("logits", "Write the logits of given tokens, for comparing with another implementation");
  const auto options = std::make_shared<LogitsOptions>();
  options->model.add_to(*app);
  app->add_option("--ids", options->ids, "File of whitespace-separated token ids: one prompt");
  app->add_option("--text", options->text, "The prompt as text");
  app->add_option("--then-ids", options->then_ids, "File of token ids to feed one at a time after the prompt");
  app->add_option("--memory", options->memory, "A memory file to attend to, as ask does");
  options->documents.add_to(*app);
  app->add_option("--output", options->output,
                  "safetensors file: logits [tokens, vocab], then_logits [then tokens, vocab], float32")
      ->required();
  app->add_flag("--json", options->json, "Print one JSON object about what was written");
  return {app, [options] { return write_logits(*options); }};
}

}  // namespace memlane
