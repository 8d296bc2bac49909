#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/generation.h"
#include "apps/ingest_jobs.h"
#include "apps/ingest_plan.h"
#include "apps/interrupt.h"
#include "apps/memory_budget.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "memory/memory_file_writer.h"
#include "runtime/resources.h"
#include "runtime/session.h"
#include "runtime/stored_memory.h"
#include "runtime/window_eviction.h"
#include "runtime/window_plan.h"

namespace memlane {

namespace {

struct IngestOptions {
  ModelOptions model;
  MemoryBudget budget;
  std::string memory;
  std::vector<std::string> documents;
  std::optional<std::string> name;
  bool plan_only = false;
  bool quiet = false;
  bool json = false;
};

class Ingest {
 public:
  explicit Ingest(IngestOptions& options) : options_(options), spool_(options_.memory) {}
  int run();

 private:
  void check(const ModelConfig& config, const Lookup& lookup) const;
  void require_evictable(const Lookup& lookup) const;
  void read_documents(const Tokenizer& tokenizer);
  void require_same_settings(const ModelConfig& config, Precision precision, const Tokenizer& tokenizer,
                             const Lookup& lookup) const;
  void choose_eviction(const CpuExec& exec, const ModelConfig& config, Precision precision);
  Lookup choose_lookup() const;
  std::vector<Reading> readings() const;
  MemoryFileHeader header(const Model& model, const std::string& tokenizer_fingerprint, const Lookup& lookup) const;
  void print_plan(const IngestPlan& plan) const;
  void require_room(const IngestPlan& plan);
  bool ingest(Job& job, CpuExec& exec, const Model& model, const Lookup& lookup, MemoryFileWriter& writer);
  bool ingest_all(CpuExec& exec, const Model& model, const std::string& tokenizer_fingerprint, const Lookup& lookup);
  void finish(const Job& job, const DocumentMemory& memory, const Lookup& lookup, MemoryFileWriter& writer) const;
  nlohmann::json report(const IngestPlan& plan, bool interrupted) const;

  IngestOptions& options_;
  Spool spool_;
  std::optional<MemoryFileWriter> writer_;
  MemorySettings settings_;
  std::optional<EvictionPolicy> eviction_;  // what a window sees of those before it; none for all
  std::vector<Job> jobs_;
  std::size_t tokens_read_ = 0;
  double seconds_ = 0;
};

void Ingest::read_documents(const Tokenizer& tokenizer) {
  const auto& given = options_.documents;
  if (options_.name && given.size() != 1)
    input_error("--name {}: expected one document to name, found {}", *options_.name, given.size());
  if (std::count(given.begin(), given.end(), "-") > 1) input_error("-: expected standard input once, found it twice");
  for (const std::string& document : given) {
    if (document == "-") spool_.read_standard_input(interrupt_flag());
    std::error_code ignored;
    const std::filesystem::path path = document == "-" ? spool_.path() : std::filesystem::path(document);
    const bool spooled = std::filesystem::equivalent(path, spool_.path(), ignored);
    const std::string name = options_.name.value_or(spooled ? "stdin" : path.filename().string());
    Job job{.document = read_document(path, name, tokenizer), .stored = {}, .stored_name = {}, .spooled = spooled};
    const auto same = std::find_if(jobs_.begin(), jobs_.end(), [&](const Job& other) {
      return other.document.text_fingerprint == job.document.text_fingerprint;
    });
    if (same == jobs_.end()) {
      jobs_.push_back(std::move(job));
    } else {
      same->spooled = same->spooled || spooled;
    }
  }
}

/// What can be told without the weights: a file is not added to, or called complete, with other settings than it was
/// made with.
void Ingest::require_same_settings(const ModelConfig& config, Precision precision, const Tokenizer& tokenizer,
                                   const Lookup& lookup) const {
  const MemoryFile& file = writer_->stored();
  Model model{.folder = options_.model.model, .config = config, .checkpoint = Checkpoint::open(options_.model.model)};
  model.precision = precision;
  model.fingerprint = file.header().model_fingerprint;
  require_same_meaning(file, header(model, tokenizer.fingerprint(), lookup));
}

MemoryFileHeader Ingest::header(const Model& model, const std::string& tokenizer_fingerprint,
                                const Lookup& lookup) const {
  MemoryFileHeader result = memory_header(model, tokenizer_fingerprint, settings_, lookup);
  if (eviction_) result.settings[kEviction] = to_text(*eviction_);
  return result;
}

/// What a window sees of those before it: as the file says, whose documents were read so, or else the budget.
void Ingest::choose_eviction(const CpuExec& exec, const ModelConfig& config, Precision precision) {
  MemoryBudget& budget = options_.budget;
  const std::optional<EvictionPolicy::Rule> asked = evicted_by(budget.choice());
  if (writer_) {
    eviction_ = stored_eviction(writer_->stored());
    if (budget.beyond && asked != (eviction_ ? std::optional(eviction_->rule) : std::nullopt)) {
      const Beyond expected = eviction_ ? beyond_of(eviction_->rule) : *budget.beyond;
      input_error("{}: was made {} --beyond {}, found --beyond {}; go on as it was made, or ingest into a new file",
                  options_.memory, eviction_ ? "with" : "without", name_of(expected), name_of(*budget.beyond));
    }
    if (eviction_) budget.beyond = beyond_of(eviction_->rule);
  } else if (asked) {
    Lookup lookup = options_.model.lookup();
    if (lookup.kind == Lookup::Kind::automatic) lookup.kind = Lookup::Kind::exact;  // what may take more than dense
    eviction_ = {*asked, 0};
    eviction_->entries = entries_to_keep(exec, {config, settings_, precision, lookup, readings(), eviction_}, budget);
  }
}

std::vector<Reading> Ingest::readings() const {
  std::vector<Reading> result;
  for (const Job& job : jobs_) result.push_back({job.document.ids.size(), job.tokens_done});
  return result;
}

/// An automatic lookup is what the file has, or what suits the largest document: each attends to its own memory.
Lookup Ingest::choose_lookup() const {
  if (writer_ && options_.model.lookup().kind == Lookup::Kind::automatic) {
    Lookup of_file = Lookup::named(writer_->stored().header().lookup);
    if (writer_->stored().header().top_k > 0) of_file.top_k = writer_->stored().header().top_k;
    return of_file;
  }
  std::size_t most = 0;
  for (const Job& job : jobs_) most = std::max(most, job.document.ids.size());
  return options_.model.lookup(eviction_ ? std::min(most, eviction_->entries) : most, options_.quiet);
}

void Ingest::print_plan(const IngestPlan& plan) const {
  const bool cut = settings_.memory_window < settings_.window;
  fmt::print(stderr, "{}: {} layers of memory ({}), windows of {} tokens{}\n", options_.memory,
             settings_.mem_layers.size(), layers_text(settings_.mem_layers), settings_.window,
             cut ? fmt::format(", cut to {} in memory layers", settings_.memory_window) : "");
  for (const Job& job : jobs_) {
    const std::size_t tokens = job.document.ids.size();
    const bool renamed = job.stored && job.stored_name != job.document.name;
    const std::string state = job.complete ? ", in memory already" + (renamed ? " as " + job.stored_name : "")
                              : job.tokens_done > 0
                                  ? fmt::format(", {} of them in memory already", count_text(job.tokens_done))
                                  : "";
    fmt::print(stderr, "  {}: {} tokens in {} windows{}\n", job.document.name, count_text(tokens),
               count_text(windows_for(tokens, settings_.window)), state);
  }
  fmt::print(stderr, "{}", plan_text(plan, options_.budget, options_.memory, eviction_));
}

void Ingest::require_room(const IngestPlan& plan) {
  options_.budget.require(plan.memory, "reading these documents");
  options_.budget.keep(plan.memory);
  const bool spills = options_.budget.choice() == Beyond::spill;
  const std::uint64_t allocated = spills ? plan.memory.fixed : plan.memory.bytes();
  require_memory(allocated - plan.memory.present, "reading these documents",
                 "use fewer --mem-layers, a smaller --mem-dtype or a smaller --window");
  require_disk(plan.disk_bytes, options_.memory, "the memory");
}

void Ingest::finish(const Job& job, const DocumentMemory& memory, const Lookup& lookup,
                    MemoryFileWriter& writer) const {
  if (!lookup.has_index() || memory.indexed_entries() == 0) return;
  if (memory.indexed_entries() > job.tokens_done) return;  // stopped inside a window, whose entries are not kept
  const auto& stored = writer.stored().documents();
  if (*job.stored < stored.size() && stored[*job.stored].indexes.entries_covered == memory.indexed_entries()) return;
  writer.store_indexes(*job.stored, memory.indexed_entries(), memory.save_indexes());
}

/// Reads what is left of a document. Returns false if it was stopped; every complete window is then in the file.
bool Ingest::ingest(Job& job, CpuExec& exec, const Model& model, const Lookup& lookup, MemoryFileWriter& writer) {
  const Document& document = job.document;
  Session session(exec, model, settings_, lookup);
  session.set_stop_flag(&interrupt_flag());
  session.set_pieces(options_.budget.pieces());
  EvictingReader reader(session, settings_, eviction_);
  if (!options_.quiet && tokens_read_ == 0) fmt::print(stderr, "{}", session.device_plan());
  if (!job.stored) {
    job.stored =
        writer.begin_document({0, document.name, document.text_fingerprint, document.text_bytes, document.ids.size()});
  } else if (job.tokens_done > 0) {
    reader.resume(exec, writer.stored(), writer.stored().documents()[*job.stored], lookup);
  }
  Progress progress(document.name, job.tokens_done, document.ids.size(), !options_.quiet);
  bool stopped = false;
  while (job.tokens_done < document.ids.size()) {
    const std::size_t count = std::min(settings_.window, document.ids.size() - job.tokens_done);
    const auto ids = std::span(document.ids).subspan(job.tokens_done, count);
    try {
      const std::span<const Segment> segments = reader.read_window(ids);
      writer.append_window(*job.stored, ids, segments, reader.seen());
    } catch (const Interrupted&) {
      stopped = true;
      break;
    }
    if (options_.budget.choice() == Beyond::spill) session.own_memory().use_stored(writer.map_last_window());
    reader.evict();
    job.tokens_done += count;
    tokens_read_ += count;
    progress.update(job.tokens_done);
  }
  seconds_ += progress.seconds();
  finish(job, session.own_memory(), lookup, writer);
  if (stopped) return false;
  writer.end_document(*job.stored);
  job.complete = true;
  return true;
}

/// Returns false if it was stopped.
bool Ingest::ingest_all(CpuExec& exec, const Model& model, const std::string& tokenizer_fingerprint,
                        const Lookup& lookup) {
  const MemoryFileHeader wanted = header(model, tokenizer_fingerprint, lookup);
  if (writer_) {
    require_same_meaning(writer_->stored(), wanted);
  } else {
    writer_.emplace(MemoryFileWriter::create(options_.memory, wanted));
  }
  spool_.keep();
  bool stopped = false;
  try {
    for (Job& job : jobs_) {
      if (!job.complete && !ingest(job, exec, model, lookup, *writer_)) {
        stopped = true;
        break;
      }
    }
  } catch (...) {
    writer_->discard_if_empty();
    throw;
  }
  if (stopped) writer_->discard_if_empty();
  return !stopped;
}

nlohmann::json Ingest::report(const IngestPlan& plan, bool interrupted) const {
  nlohmann::json documents = nlohmann::json::array();
  for (const Job& job : jobs_) {
    documents.push_back({{"name", job.document.name},
                         {"tokens", job.document.ids.size()},
                         {"windows", windows_for(job.document.ids.size(), settings_.window)},
                         {"tokens_in_memory", job.tokens_done},
                         {"complete", job.complete}});
  }
  std::error_code ignored;
  const bool exists = std::filesystem::exists(options_.memory, ignored);
  const MemoryBudget& budget = options_.budget;
  nlohmann::json report = {{"memory", options_.memory},
                           {"documents", documents},
                           {"window", settings_.window},
                           {"memory_window", settings_.memory_window},
                           {"mem_layers", settings_.mem_layers},
                           {"planned_memory_bytes", budget.planned(plan.memory)},
                           {"planned_fixed_bytes", plan.memory.fixed},
                           {"planned_entry_bytes", plan.memory.entries},
                           {"peak_memory_bytes", peak_memory()},
                           {"planned_disk_bytes", plan.disk_bytes},
                           {"planned_seconds", plan.seconds},
                           {"file_bytes", exists ? std::filesystem::file_size(options_.memory, ignored) : 0},
                           {"tokens_read", tokens_read_},
                           {"seconds", seconds_},
                           {"tokens_per_second", seconds_ > 0 ? static_cast<double>(tokens_read_) / seconds_ : 0.0},
                           {"interrupted", interrupted}};
  if (budget.most) report["max_memory_bytes"] = *budget.most;
  if (budget.most) report["beyond"] = name_of(budget.choice());
  if (eviction_) report["kept_entries"] = eviction_->entries;
  return report;
}

/// Options that do not go together.
void Ingest::check(const ModelConfig& config, const Lookup& lookup) const {
  if (settings_.mem_layers.empty()) {
    input_error(
        "{}: expected memory layers, found none, so nothing would be remembered; choose some with --mem-layers, for "
        "example {}",
        options_.model.model, config.num_layers / 2);
  }
  if (carries_over(settings_)) {
    input_error(
        "{}: expected windows that can be read one by one, so that reading can be continued; found one that leaves "
        "tokens to the next; ingest without it",
        settings_.overlap > 0 ? "--overlap" : "--sliding-window");
  }
  if (options_.budget.most && !options_.model.device_choice().is_cpu()) {
    input_error("--max-memory-bytes: expected the model on the CPU, found --device {}; leave one of them out",
                options_.model.device);
  }
  if (options_.budget.choice() == Beyond::evict_least_attended) require_attention(settings_);
  if (lookup.has_index()) make_key_index(lookup, config.head_dim);  // refused before any work
}

/// Once it is known what is kept.
void Ingest::require_evictable(const Lookup& lookup) const {
  if (!eviction_) return;
  const std::string beyond = name_of(beyond_of(eviction_->rule));
  if (lookup.has_index()) {
    input_error(
        "--beyond {}: expected --index dense or exact, whose memory can lose entries, found {}; choose one of them, or "
        "--beyond spill",
        beyond, lookup.name());
  }
  if (!options_.model.device_choice().is_cpu()) {
    input_error("{}: was made with --beyond {}, which needs --device cpu, found {}", options_.memory, beyond,
                options_.model.device);
  }
}

int Ingest::run() {
  interrupt_flag();
  options_.budget.check();
  options_.budget.keep({});
  // Before the memory is opened: verifying it takes minutes if it is large.
  for (const std::string& document : options_.documents) {
    if (document != "-") open_text(document);
  }
  std::error_code ignored;
  if (std::filesystem::exists(options_.memory, ignored)) {
    writer_.emplace(MemoryFileWriter::append_to(options_.memory));
    options_.model.take_from(writer_->stored());
  }
  CpuExec exec = options_.model.make_exec();
  const Lookup asked_lookup = options_.model.lookup();
  const ModelConfig config = read_model_config(options_.model.model);
  settings_ = options_.model.settings(config);
  check(config, asked_lookup);
  const Tokenizer tokenizer = Tokenizer::open(options_.model.model);
  require_vocabulary(tokenizer, config, options_.model.model);
  const Precision precision = options_.model.precision();
  read_documents(tokenizer);
  choose_eviction(exec, config, precision);
  const Lookup lookup = choose_lookup();
  require_evictable(lookup);
  if (writer_) require_same_settings(config, precision, tokenizer, lookup);
  if (writer_) match_stored(jobs_, writer_->stored());
  require_new_names(jobs_, writer_ ? &writer_->stored() : nullptr);

  const IngestWork work = {config, settings_, precision, lookup, readings(), eviction_};
  IngestPlan plan = plan_ingest(exec, work);
  if (!options_.quiet || options_.json) plan.seconds = ingest_seconds(exec, work, plan, options_.memory);
  if (!options_.quiet) print_plan(plan);
  const bool something_to_do = std::any_of(jobs_.begin(), jobs_.end(), [](const Job& job) { return !job.complete; });
  bool interrupted = false;
  if (something_to_do) {
    require_room(plan);
    if (!options_.plan_only) {
      const Model model = load_model(exec, options_.model.model, precision, options_.model.device_choice());
      interrupted = !ingest_all(exec, model, tokenizer.fingerprint(), lookup);
    }
  }
  const auto kept_spool = [](const Job& job) { return job.spooled && !job.complete; };
  const bool keeps_spool = std::any_of(jobs_.begin(), jobs_.end(), kept_spool);
  const bool used_spool = std::any_of(jobs_.begin(), jobs_.end(), [](const Job& job) { return job.spooled; });
  if (used_spool && !keeps_spool) spool_.remove();
  if (options_.json) print_json(report(plan, interrupted));
  if (!interrupted) return 0;
  if (keeps_spool) {
    fmt::print(stderr,
               "memlane: the text from standard input is kept in {} until it is read; give it again, or that file as "
               "the document\n",
               spool_.path().string());
  }
  fmt::print(stderr, "memlane: stopped; every complete window is kept, and the same command continues\n");
  return 1;
}

}  // namespace

Subcommand add_ingest(CLI::App& program) {
  CLI::App* app = program.add_subcommand("ingest", "Read documents into a memory file");
  const auto options = std::make_shared<IngestOptions>();
  options->model.add_to(*app);
  options->budget.add_to(*app, true);
  app->add_option("--memory", options->memory, "The memory file to make or to add to")->required();
  app->add_option("documents", options->documents, "Text files (UTF-8); - for standard input")->required();
  app->add_option("--name", options->name, "What to call the document (default: its file name)");
  app->add_flag("--plan", options->plan_only, "Only say what would be done");
  app->add_flag("--quiet", options->quiet, "No plan, no progress");
  app->add_flag("--json", options->json, "Print one JSON object about what was done");
  return {app, [options] { return Ingest(*options).run(); }};
}

}  // namespace memlane
