#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/documents.h"
#include "apps/generation.h"
#include "apps/interrupt.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "memory/memory_file_writer.h"
#include "runtime/cost_estimate.h"
#include "runtime/resources.h"
#include "runtime/session.h"
#include "runtime/stored_memory.h"
#include "runtime/window_plan.h"

namespace memlane {

namespace {

struct IngestOptions {
  ModelOptions model;
  std::string memory;
  std::vector<std::string> documents;
  std::optional<std::string> name;
  bool plan_only = false;
  bool quiet = false;
  bool json = false;
};

/// What is to be done with one document.
struct Job {
  Document document;
  std::optional<std::uint32_t> stored;  ///< its id, if the file has it already
  std::string stored_name;              ///< what it is called there
  bool complete = false;
  std::size_t tokens_done = 0;
  bool spooled = false;  ///< its text came from standard input
};

/// What a run will take.
struct Plan {
  std::size_t tokens = 0;
  std::size_t tokens_done = 0;
  std::uint64_t memory_bytes = 0;  ///< weights, local cache, workspace, the largest document's entries
  std::uint64_t disk_bytes = 0;
  double seconds = 0;
};

class Ingest {
 public:
  explicit Ingest(IngestOptions options) : options_(std::move(options)), spool_(options_.memory) {}
  int run();

 private:
  void read_documents(const Tokenizer& tokenizer);
  void require_same_settings(const ModelConfig& config, Precision precision, const Tokenizer& tokenizer,
                             const Lookup& lookup) const;
  Lookup choose_lookup() const;
  Plan make_plan(CpuExec& exec, const ModelConfig& config, Precision precision, const EntryShape& shape,
                 const Lookup& lookup) const;
  void print_plan(const Plan& plan) const;
  bool ingest(Job& job, CpuExec& exec, const Model& model, const Lookup& lookup, MemoryFileWriter& writer);
  bool ingest_all(CpuExec& exec, const Model& model, const std::string& tokenizer_fingerprint, const Lookup& lookup);
  void finish(const Job& job, const DocumentMemory& memory, const Lookup& lookup, MemoryFileWriter& writer) const;
  nlohmann::json report(const Plan& plan, bool interrupted) const;

  IngestOptions options_;
  Spool spool_;
  std::optional<MemoryFileWriter> writer_;
  MemorySettings settings_;
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

/// Finds the documents that the file has already, by their text.
void match_stored(std::vector<Job>& jobs, const MemoryFile& file) {
  for (Job& job : jobs) {
    for (const StoredDocument& stored : file.documents()) {
      if (stored.dropped || stored.info.text_fingerprint != job.document.text_fingerprint ||
          stored.info.tokens != job.document.ids.size())
        continue;
      job.stored = stored.info.id;
      job.stored_name = stored.info.name;
      job.complete = stored.complete;
      job.tokens_done = stored.entries();
    }
  }
}

/// A name stands for one text. file: the memory file; null before there is one.
void require_new_names(const std::vector<Job>& jobs, const MemoryFile* file) {
  for (const Job& job : jobs) {
    if (job.stored) continue;
    const std::string& name = job.document.name;
    for (const Job& other : jobs) {
      if (&other == &job || other.document.name != name || other.stored) continue;
      input_error("{}: expected one text of this name, found two; ingest one of them by itself, with another --name",
                  name);
    }
    for (const StoredDocument& stored : file != nullptr ? file->documents() : std::vector<StoredDocument>()) {
      if (stored.dropped || stored.info.name != name) continue;
      input_error(
          "{}: holds another text of the name '{}' already (document {}); give this one another --name, or drop that "
          "one with `memlane memory drop`",
          file->path().string(), name, stored.info.id);
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
  require_same_meaning(file, memory_header(model, tokenizer.fingerprint(), settings_, lookup));
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
  return options_.model.lookup(most, options_.quiet);
}

Plan Ingest::make_plan(CpuExec& exec, const ModelConfig& config, Precision precision, const EntryShape& shape,
                       const Lookup& lookup) const {
  Plan plan;
  std::size_t most_entries = 0;
  ReadingCost cost;
  for (const Job& job : jobs_) {
    const std::size_t tokens = job.document.ids.size();
    plan.tokens += tokens;
    plan.tokens_done += job.tokens_done;
    const std::size_t left = tokens - job.tokens_done;
    if (left == 0) continue;
    most_entries = std::max(most_entries, tokens);
    const ReadingCost of_document = reading_cost(config, settings_, job.tokens_done, tokens);
    cost.matmul_flops += of_document.matmul_flops;
    cost.scores += of_document.scores;
    constexpr std::size_t kRecordBytes = 512;     // headers and padding of a record, generously
    for (std::size_t begin = 0; begin < left;) {  // a segment and its ids for each sub-window of each window
      const std::size_t in_window = settings_.window - begin % settings_.window;
      const std::size_t count = std::min({left - begin, in_window, settings_.memory_window});
      plan.disk_bytes += shape.segment_bytes(count) + count * sizeof(std::int32_t) + kRecordBytes;
      begin += count;
    }
    plan.disk_bytes += index_bytes(shape, lookup, tokens) + 8 * kRecordBytes;
  }
  plan.memory_bytes = weight_bytes(config, precision) +
                      Session::bytes(config, settings_, precision.compute, most_entries) +
                      2 * index_bytes(shape, lookup, most_entries);
  if (cost.matmul_flops > 0) plan.seconds = estimate_seconds(exec, config, precision, cost);
  return plan;
}

void Ingest::print_plan(const Plan& plan) const {
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
  fmt::print(stderr, "  needs {} of memory ({} free), {} of disk ({} free) and about {}\n",
             bytes_text(plan.memory_bytes), bytes_text(free_memory()), bytes_text(plan.disk_bytes),
             bytes_text(free_disk(options_.memory)), duration_text(plan.seconds));
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
  if (!job.stored) {
    job.stored =
        writer.begin_document({0, document.name, document.text_fingerprint, document.text_bytes, document.ids.size()});
  } else if (job.tokens_done > 0) {
    session.own_memory() = load_document(exec, writer.stored(), writer.stored().documents()[*job.stored], lookup);
  }
  Progress progress(document.name, job.tokens_done, document.ids.size(), !options_.quiet);
  bool stopped = false;
  while (job.tokens_done < document.ids.size()) {
    const std::size_t count = std::min(settings_.window, document.ids.size() - job.tokens_done);
    const auto ids = std::span(document.ids).subspan(job.tokens_done, count);
    try {
      writer.append_window(*job.stored, ids, session.read_window(ids));
    } catch (const Interrupted&) {
      stopped = true;
      break;
    }
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
  const MemoryFileHeader header = memory_header(model, tokenizer_fingerprint, settings_, lookup);
  if (writer_) {
    require_same_meaning(writer_->stored(), header);
  } else {
    writer_.emplace(MemoryFileWriter::create(options_.memory, header));
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

nlohmann::json Ingest::report(const Plan& plan, bool interrupted) const {
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
  return {{"memory", options_.memory},
          {"documents", documents},
          {"window", settings_.window},
          {"memory_window", settings_.memory_window},
          {"mem_layers", settings_.mem_layers},
          {"planned_memory_bytes", plan.memory_bytes},
          {"planned_disk_bytes", plan.disk_bytes},
          {"planned_seconds", plan.seconds},
          {"file_bytes", exists ? std::filesystem::file_size(options_.memory, ignored) : 0},
          {"tokens_read", tokens_read_},
          {"seconds", seconds_},
          {"tokens_per_second", seconds_ > 0 ? static_cast<double>(tokens_read_) / seconds_ : 0.0},
          {"interrupted", interrupted}};
}

int Ingest::run() {
  interrupt_flag();
  std::error_code ignored;
  if (std::filesystem::exists(options_.memory, ignored)) {
    writer_.emplace(MemoryFileWriter::append_to(options_.memory));
    options_.model.take_from(writer_->stored());
  }
  CpuExec exec = options_.model.make_exec();
  const Lookup asked_lookup = options_.model.lookup();
  const ModelConfig config = read_model_config(options_.model.model);
  settings_ = options_.model.settings(config);
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
  const EntryShape shape = entry_shape(config, settings_);
  if (asked_lookup.has_index()) make_key_index(asked_lookup, shape.head_dim);  // refused before any work
  const Tokenizer tokenizer = Tokenizer::open(options_.model.model);
  require_vocabulary(tokenizer, config, options_.model.model);
  const Precision precision = options_.model.precision();
  read_documents(tokenizer);
  const Lookup lookup = choose_lookup();
  if (writer_) require_same_settings(config, precision, tokenizer, lookup);
  if (writer_) match_stored(jobs_, writer_->stored());
  require_new_names(jobs_, writer_ ? &writer_->stored() : nullptr);

  const Plan plan = make_plan(exec, config, precision, shape, lookup);
  if (!options_.quiet) print_plan(plan);
  const bool something_to_do = std::any_of(jobs_.begin(), jobs_.end(), [](const Job& job) { return !job.complete; });
  bool interrupted = false;
  if (something_to_do) {
    require_memory(plan.memory_bytes, "reading these documents",
                   "use fewer --mem-layers, a smaller --mem-dtype or a smaller --window");
    require_disk(plan.disk_bytes, options_.memory, "the memory");
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
  app->add_option("--memory", options->memory, "The memory file to make or to add to")->required();
  app->add_option("documents", options->documents, "Text files (UTF-8); - for standard input")->required();
  app->add_option("--name", options->name, "What to call the document (default: its file name)");
  app->add_flag("--plan", options->plan_only, "Only say what would be done");
  app->add_flag("--quiet", options->quiet, "No plan, no progress");
  app->add_flag("--json", options->json, "Print one JSON object about what was done");
  return {app, [options] { return Ingest(*options).run(); }};
}

}  // namespace memlane
