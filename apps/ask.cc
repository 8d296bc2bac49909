#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/asked_memory.h"
#include "apps/commands.h"
#include "apps/count_option.h"
#include "apps/documents.h"
#include "apps/generation.h"
#include "apps/interrupt.h"
#include "apps/memory_budget.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "apps/sources_report.h"
#include "runtime/resources.h"
#include "runtime/session.h"
#include "runtime/stored_memory.h"

namespace memlane {

namespace {

struct AskOptions {
  ModelOptions model;
  MemoryBudget budget;
  std::string memory;
  AskedDocuments documents;
  std::string question;
  std::vector<std::string> sources;  ///< how many to report; none for no report
  GenerationOptions generation;
};

/// Says which documents are known in part only.
void note_incomplete(const MemoryFile& file, const std::vector<std::uint32_t>& ids) {
  for (const std::uint32_t id : ids) {
    const StoredDocument& document = file.documents()[id];
    if (document.complete) continue;
    fmt::print(stderr, "memlane: {}: only {} of {} tokens of '{}' have been read\n", file.path().string(),
               document.entries(), document.info.tokens, document.info.name);
  }
}

/// What asking documents takes. tokens: of the question and the answer.
MemoryNeed need_of(const CpuExec& exec, const ModelConfig& config, const MemorySettings& settings, Precision precision,
                   const Lookup& lookup, const MemoryFile& file, std::span<const std::uint32_t> asked,
                   std::size_t tokens) {
  SessionSize size = {.tokens = tokens, .entries = 0, .segments = 1, .documents = asked.size() + 1};
  std::uint64_t entries = 0;
  for (const std::uint32_t id : asked) {
    const StoredDocument& document = file.documents()[id];
    size.segments += document.windows.size();
    size.entries += document.entries();
    for (const StoredWindow& window : document.windows) entries += file.header().shape.segment_bytes(window.count);
  }
  const IndexBytes indexes = stored_index_bytes(exec, file, asked, lookup);
  MemoryNeed need = session_need(exec, config, settings, precision, lookup, size);
  need.fixed += indexes.own + Session::entry_bytes(config, settings, tokens);
  need.entries = entries + indexes.mapped;
  return need;
}

int ask(AskOptions& options) {
  options.generation.sampler.check();
  options.budget.check();
  options.budget.keep({});
  require_utf8("question", options.question);
  const std::size_t most_sources =
      options.sources.empty() ? 0 : parse_count("--sources", options.sources.back(), {.least = 1, .most = 1000});
  const MemoryFile file = MemoryFile::open(options.memory);
  const std::vector<std::uint32_t> asked = options.documents.choose(file);
  options.model.take_from(file);
  CpuExec exec = options.model.make_exec();
  const Lookup lookup = options.model.lookup(entries_of(file, asked), options.generation.json);
  const ModelConfig config = read_model_config(options.model.model);
  const Tokenizer tokenizer = Tokenizer::open(options.model.model);
  require_vocabulary(tokenizer, config, options.model.model);
  const std::vector<std::int32_t> ids = tokenizer.encode(options.question, false);
  if (ids.empty()) input_error("question: expected a text, found nothing but spaces; ask something");
  if (!options.model.last_context_length)
    options.model.last_context_length = std::min(ids.size(), *options.model.window);
  const MemorySettings settings = options.model.settings(config);
  const Precision precision = options.model.precision();
  if (options.budget.most && !options.model.device_choice().is_cpu()) {
    input_error("--max-memory-bytes: expected the model on the CPU, found --device {}; leave one of them out",
                options.model.device);
  }
  const std::size_t tokens = ids.size() + options.generation.max_tokens;
  const MemoryNeed need = need_of(exec, config, settings, precision, lookup, file, asked, tokens);
  options.budget.require(need, "this question");
  options.budget.keep(need);
  require_memory(need.fixed - need.present, "this question", "use a shorter one, or fewer --max-tokens");
  const Model model = load_model(exec, options.model.model, precision, options.model.device_choice());
  const AskedMemory memory(exec, file, asked, model, tokenizer.fingerprint(), settings, lookup);
  note_incomplete(file, asked);

  Session session(exec, model, settings, lookup, memory.seen());
  session.set_stop_flag(&interrupt_flag());
  session.set_pieces(options.budget.pieces());
  MemoryWeights weights;
  if (most_sources > 0) session.set_record(&weights);
  const bool json = options.generation.json;
  const Generated answer = generate(session, model, tokenizer, ids, settings.last_context_length, options.generation,
                                    false, [&](std::string_view text) {
                                      if (!json) print_text(text);
                                    });
  std::optional<SourcesReport> sources;
  if (most_sources > 0) sources.emplace(file, asked, tokenizer, weights, most_sources);
  if (json) {
    nlohmann::json report = to_json(answer, ids.size());
    report["question"] = options.question;
    report["memory"] = options.memory;
    report["documents"] = memory.seen().size();
    report["memory_entries"] = entries_of(file, asked);
    report["lookup"] = lookup.name();
    report["planned_memory_bytes"] = options.budget.planned(need);
    report["peak_memory_bytes"] = peak_memory();
    if (sources) report["sources"] = sources->json();
    print_json(report);
  } else {
    print_text("\n" + (sources ? sources->table() : ""));
  }
  return answer.stop == "interrupted" ? 1 : 0;
}

}  // namespace

Subcommand add_ask(CLI::App& program) {
  CLI::App* app = program.add_subcommand("ask", "Continue a question out of a memory file");
  const auto options = std::make_shared<AskOptions>();
  options->model.add_to(*app);
  options->budget.add_to(*app, false);
  app->add_option("--memory", options->memory, "The memory file; it is never changed")->required();
  options->documents.add_to(*app);
  app->add_option("question", options->question, "The text to continue")->required();
  // A flag, because the question that follows must not be taken for its number.
  app->add_flag(
      "--sources{5}", options->sources,
      "Say where the answer came from: the places in the documents that got the most attention; 5 of them, or "
      "N with --sources=N");
  options->generation.add_to(*app);
  return {app, [options] { return ask(*options); }};
}

}  // namespace memlane
