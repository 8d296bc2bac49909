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
  std::optional<std::string> question;
  std::optional<std::string> questions;  ///< a file of them, instead of one
  std::vector<std::string> sources;      ///< how many to report; none for no report
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

struct Question {
  std::string text;
  std::vector<std::int32_t> ids;
};

/// The question, or those of the file that is given instead, one in each line.
std::vector<Question> read_questions(const AskOptions& options, const Tokenizer& tokenizer) {
  std::vector<Question> questions;
  const auto add = [&](std::string_view text) {
    std::vector<std::int32_t> ids = tokenizer.encode(text, false);
    if (!ids.empty()) questions.push_back({std::string(text), std::move(ids)});
  };
  if (options.question) {
    add(*options.question);
    if (questions.empty()) input_error("question: expected a text, found nothing but spaces; ask something");
    return questions;
  }
  const MappedFile file = open_text(*options.questions, "file of questions");
  for (std::string_view rest = file.text(); !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find_first_not_of(" \t") != std::string_view::npos) add(line);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  if (questions.empty()) {
    input_error("{}: expected a question in each line, found nothing but spaces", *options.questions);
  }
  return questions;
}

/// What is asked, made once for all questions.
struct Asked {
  const AskOptions& options;
  const std::vector<Question>& questions;
  CpuExec& exec;
  const MemoryFile& file;
  const Model& model;
  const Tokenizer& tokenizer;
  const MemorySettings& settings;
  std::optional<std::size_t> last_context_length;  ///< none: as long as the question
  const Lookup& lookup;
  const AskedMemory& memory;
  MemoryNeed need;
  std::size_t most_sources;
};

nlohmann::json report_of(const Asked& asked, const Question& question, const Generated& answer,
                         const SearchCount& searched) {
  nlohmann::json report = to_json(answer, question.ids.size());
  report["question"] = question.text;
  report["memory"] = asked.options.memory;
  report["documents"] = asked.memory.seen().size();
  report["memory_entries"] = entries_of(asked.file, asked.memory.ids());
  report["joint_documents"] = asked.memory.joint() == nullptr ? 0 : asked.memory.joint()->entries_of_documents().size();
  report["lookup"] = asked.lookup.name();
  if (searched.rows > 0) {
    const auto rows = static_cast<double>(searched.rows);
    report["lists_compared_per_query"] = static_cast<double>(searched.lists) / rows;
    report["keys_scanned_per_query"] = static_cast<double>(searched.keys) / rows;
  }
  report["planned_memory_bytes"] = asked.options.budget.planned(asked.need);
  report["peak_memory_bytes"] = peak_memory();
  return report;
}

/// Prints the answer to one question, as if it were the only one; false if that was interrupted.
bool answer(const Asked& asked, const Question& question) {
  const GenerationOptions& generation = asked.options.generation;
  MemorySettings settings = asked.settings;
  settings.last_context_length = asked.last_context_length.value_or(std::min(question.ids.size(), settings.window));
  Session session(asked.exec, asked.model, settings, asked.lookup, asked.memory.seen(), asked.memory.joint());
  session.set_stop_flag(&interrupt_flag());
  session.set_pieces(asked.options.budget.pieces());
  session.set_on_disk(asked.memory.is_on_disk());
  if (!generation.json && &question == &asked.questions.front()) fmt::print(stderr, "{}", session.device_plan());
  SearchCount searched;
  session.set_count(&searched);
  MemoryWeights weights;
  if (asked.most_sources > 0) session.set_record(&weights);
  const bool among_others = asked.options.questions.has_value();
  if (among_others && !generation.json) print_text(fmt::format("> {}\n", one_line(question.text)));
  const Generated answer = generate(session, asked.model, asked.tokenizer, question.ids, settings.last_context_length,
                                    generation, false, [&](std::string_view text) {
                                      if (!generation.json) print_text(text);
                                    });
  std::optional<SourcesReport> sources;
  if (asked.most_sources > 0) {
    sources.emplace(asked.file, asked.memory.ids(), asked.tokenizer, weights, asked.most_sources);
  }
  if (generation.json) {
    nlohmann::json report = report_of(asked, question, answer, searched);
    if (sources) report["sources"] = sources->json();
    among_others ? print_json_line(report) : print_json(report);
  } else {
    print_text("\n" + (sources ? sources->table() : "") + (among_others ? "\n" : ""));
  }
  return answer.stop != "interrupted";
}

int ask(AskOptions& options) {
  options.generation.sampler.check();
  options.budget.check();
  options.budget.keep({});
  if (options.question.has_value() == options.questions.has_value()) {
    input_error("question: expected one, or a file of them with --questions, found {}; give one of the two",
                options.question ? "both" : "neither");
  }
  require_utf8("question", options.question.value_or(""));
  const std::size_t most_sources =
      options.sources.empty() ? 0 : parse_count("--sources", options.sources.back(), {.least = 1, .most = 1000});
  const ModelConfig config = read_model_config(options.model.model);
  const Tokenizer tokenizer = Tokenizer::open(options.model.model);
  require_vocabulary(tokenizer, config, options.model.model);
  const std::vector<Question> questions = read_questions(options, tokenizer);
  // After all that may be refused at once: verifying it takes minutes if it is large.
  const MemoryFile file = options.documents.open(options.memory);
  const std::vector<std::uint32_t> ids = options.documents.choose(file);
  options.model.take_from(file);
  CpuExec exec = options.model.make_exec();
  const Lookup lookup = options.model.lookup(entries_of(file, ids), options.generation.json);
  std::size_t longest = 0;
  for (const Question& question : questions) longest = std::max(longest, question.ids.size());
  const std::optional<std::size_t> last_context_length = options.model.last_context_length;
  if (!last_context_length) options.model.last_context_length = std::min(longest, *options.model.window);
  const MemorySettings settings = options.model.settings(config);
  const Precision precision = options.model.precision();
  if (options.budget.most && !options.model.device_choice().is_cpu()) {
    input_error("--max-memory-bytes: expected the model on the CPU, found --device {}; leave one of them out",
                options.model.device);
  }
  const MemoryNeed need =
      need_of(exec, config, settings, precision, lookup, file, ids, longest + options.generation.max_tokens);
  options.budget.require(need, "this question");
  options.budget.keep(need);
  require_memory(need.fixed - need.present, "this question", "use a shorter one, or fewer --max-tokens");
  const Model model = load_model(exec, options.model.model, precision, options.model.device_choice());
  const AskedMemory memory(exec, file, ids, model, tokenizer.fingerprint(), settings, lookup);
  note_incomplete(file, ids);

  const Asked asked = {options,  questions,           exec,   file,   model, tokenizer,
                       settings, last_context_length, lookup, memory, need,  most_sources};
  for (const Question& question : questions) {
    if (!answer(asked, question)) return 1;
  }
  return 0;
}

}  // namespace

Subcommand add_ask(CLI::App& program) {
  CLI::App* app = program.add_subcommand("ask", "Continue a question out of a memory file");
  const auto options = std::make_shared<AskOptions>();
  options->model.add_to(*app);
  options->budget.add_to(*app, false);
  app->add_option("--memory", options->memory, "The memory file; it is never changed")->required();
  options->documents.add_to(*app);
  app->add_option("question", options->question, "The text to continue");
  app->add_option(
         "--questions", options->questions,
         "A file with a text to continue in each line, instead of one: each is continued as if it were asked "
         "alone, but the memory is opened once; lines of spaces are left out; with --json an object in a line for each")
      ->type_name("FILE");
  // A flag, because the question that follows must not be taken for its number.
  app->add_flag(
      "--sources{5}", options->sources,
      "Say where the answer came from: the places in the documents that got the most attention; 5 of them, or "
      "N with --sources=N");
  options->generation.add_to(*app);
  return {app, [options] { return ask(*options); }};
}

}  // namespace memlane
