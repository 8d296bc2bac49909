#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/documents.h"
#include "apps/generation.h"
#include "apps/interrupt.h"
#include "apps/model_options.h"
#include "runtime/resources.h"
#include "runtime/safetensors.h"
#include "runtime/session.h"
#include "runtime/stored_memory.h"

namespace memlane {

namespace {

struct LogitsOptions {
  ModelOptions model;
  std::optional<std::string> ids, text, then_ids, memory;
  std::string output;
  bool json = false;
};

std::vector<std::int32_t> prompt_ids(const LogitsOptions& options) {
  if (options.ids.has_value() == options.text.has_value()) input_error("logits: give the prompt either as --ids or as --text");
  if (options.ids) return read_ids(*options.ids);
  // As ask does, a text put to a memory gets no BOS; a text by itself does.
  const std::vector<std::int32_t> ids = Tokenizer::open(options.model.model).encode(*options.text, !options.memory);
  if (ids.empty()) input_error("--text: expected a text, found nothing");
  return ids;
}

int write_logits(LogitsOptions options) {
  const bool own_context_length = options.model.last_context_length.has_value();
  std::optional<MemoryFile> file;
  if (options.memory) {
    file.emplace(MemoryFile::open(*options.memory));
    options.model.take_from(file->header());
  }
  CpuExec exec = options.model.make_exec();
  const Lookup lookup = options.model.lookup();
  const std::vector<std::int32_t> ids = prompt_ids(options);
  const std::vector<std::int32_t> then_ids = options.then_ids ? read_ids(*options.then_ids) : std::vector<std::int32_t>();
  const ModelConfig config = read_model_config(options.model.model);
  require_memory((ids.size() + then_ids.size()) * config.vocab_size * sizeof(float), "the logits", "use a shorter prompt");
  const Model model = load_model(exec, options.model.model, options.model.compute_type());
  const MemorySettings settings = resolve_memory_settings(model.config, options.model.overrides());

  std::vector<std::unique_ptr<DocumentMemory>> documents;
  std::vector<const DocumentMemory*> seen;
  if (file) {
    MemoryFileHeader asked_for = memory_header(model, file->header().tokenizer_fingerprint, settings, lookup);
    asked_for.lookup = file->header().lookup;
    asked_for.top_k = file->header().top_k;
    asked_for.settings = file->header().settings;
    require_same_meaning(*file, asked_for);
    documents = load_documents(exec, *file, lookup);
    for (const auto& document : documents) seen.push_back(document.get());
  }
  Session session(exec, model, settings, lookup, seen);
  session.set_stop_flag(&interrupt_flag());
  const std::size_t last_context_length =
      file && !own_context_length ? std::min(ids.size(), settings.window) : settings.last_context_length;

  const std::size_t vocab = model.config.vocab_size;
  std::vector<float> logits(ids.size() * vocab);
  std::vector<float> then_logits(then_ids.size() * vocab);
  session.call(ids, last_context_length, {logits.data(), {ids.size(), vocab}});
  for (std::size_t i = 0; i < then_ids.size(); ++i) {
    session.call({&then_ids[i], 1}, 1, {then_logits.data() + i * vocab, {1, vocab}});
  }
  std::vector<OutputTensor> tensors = {{"logits", {ids.size(), vocab}, std::span<const float>(logits)}};
  if (!then_ids.empty()) tensors.push_back({"then_logits", {then_ids.size(), vocab}, std::span<const float>(then_logits)});
  write_safetensors(options.output, tensors);
  if (options.json) {
    const nlohmann::json report = {{"output", options.output},
                                   {"tokens", ids.size()},
                                   {"then_tokens", then_ids.size()},
                                   {"vocab", vocab},
                                   {"compute", name_of(model.compute)},
                                   {"local_length", session.local_length()},
                                   {"memory_entries", session.memory_length()}};
    fmt::print("{}\n", report.dump(2));
  }
  return 0;
}

}  // namespace

Subcommand add_logits(CLI::App& program) {
  CLI::App* app = program.add_subcommand("logits", "Write the logits of given tokens, for comparing with another implementation");
  const auto options = std::make_shared<LogitsOptions>();
  options->model.add_to(*app);
  app->add_option("--ids", options->ids, "File of whitespace-separated token ids: one prompt");
  app->add_option("--text", options->text, "The prompt as text");
  app->add_option("--then-ids", options->then_ids, "File of token ids to feed one at a time after the prompt");
  app->add_option("--memory", options->memory, "A memory file to attend to, as ask does");
  app->add_option("--output", options->output, "safetensors file: logits [tokens, vocab], then_logits [then tokens, vocab], float32")->required();
  app->add_flag("--json", options->json, "Print one JSON object about what was written");
  return {app, [options] { return write_logits(*options); }};
}

}  // namespace memlane
