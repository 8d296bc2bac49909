#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/generation.h"
#include "apps/interrupt.h"
#include "apps/model_options.h"
#include "runtime/session.h"
#include "runtime/stored_memory.h"

namespace memlane {

namespace {

struct AskOptions {
  ModelOptions model;
  std::string memory;
  std::string question;
  GenerationOptions generation;
};

int ask(AskOptions options) {
  options.generation.check();
  if (options.question.empty()) input_error("question: expected a text, found nothing");
  const MemoryFile file = MemoryFile::open(options.memory);
  options.model.take_from(file.header());
  CpuExec exec = options.model.make_exec();
  const Lookup lookup = options.model.lookup();
  const Tokenizer tokenizer = Tokenizer::open(options.model.model);
  const Model model = load_model(exec, options.model.model, options.model.compute_type());
  require_vocabulary(tokenizer, model.config, options.model.model);
  const MemorySettings settings = resolve_memory_settings(model.config, options.model.overrides());
  // How the question looks memory up is free; how the documents did while they were read is part of the file.
  MemoryFileHeader asked_for = memory_header(model, tokenizer.fingerprint(), settings, lookup);
  asked_for.lookup = file.header().lookup;
  asked_for.top_k = file.header().top_k;
  asked_for.settings = file.header().settings;
  require_same_meaning(file, asked_for);

  const auto documents = load_documents(exec, file, lookup);
  if (documents.empty()) input_error("{}: holds no document yet; ingest one first", options.memory);
  std::vector<const DocumentMemory*> seen;
  for (const auto& document : documents) seen.push_back(document.get());
  for (const StoredDocument& document : file.documents()) {
    if (!document.complete) {
      fmt::print(stderr, "memlane: {}: only {} of {} tokens of '{}' have been read\n", options.memory, document.entries(),
                 document.info.tokens, document.info.name);
    }
  }

  Session session(exec, model, settings, lookup, seen);
  session.set_stop_flag(&interrupt_flag());
  const std::vector<std::int32_t> ids = tokenizer.encode(options.question, false);
  const std::size_t entries = session.memory_length();
  const bool json = options.generation.json;
  const Generated answer = generate(session, model, tokenizer, ids, std::min(ids.size(), settings.window), options.generation, false,
                                    [&](std::string_view text) { if (!json) print_text(text); });
  if (json) {
    nlohmann::json report = to_json(answer, ids.size());
    report["question"] = options.question;
    report["memory"] = options.memory;
    report["documents"] = documents.size();
    report["memory_entries"] = entries;
    report["lookup"] = lookup.name();
    print_text(report.dump(2));
  }
  print_text("\n");
  return answer.stop == "interrupted" ? 1 : 0;
}

}  // namespace

Subcommand add_ask(CLI::App& program) {
  CLI::App* app = program.add_subcommand("ask", "Continue a question out of a memory file");
  const auto options = std::make_shared<AskOptions>();
  options->model.add_to(*app);
  app->add_option("--memory", options->memory, "The memory file; it is never changed")->required();
  app->add_option("question", options->question, "The text to continue")->required();
  options->generation.add_to(*app);
  return {app, [options] { return ask(*options); }};
}

}  // namespace memlane
