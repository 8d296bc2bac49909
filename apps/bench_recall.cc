#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/documents.h"
#include "apps/generation.h"
#include "apps/interrupt.h"
#include "apps/model_options.h"
#include "apps/progress.h"
#include "runtime/recall.h"
#include "runtime/session.h"

namespace memlane {

namespace {

struct RecallOptions {
  ModelOptions model;
  RecallTask task = RecallTask::passkey;
  RecallFiller filler = RecallFiller::book;
  std::string book;
  std::vector<std::size_t> lengths = {2048, 8192, 32768};
  std::optional<std::size_t> trials;
  std::vector<std::string> methods = {"memory", "none"};
  std::uint64_t seed = 1;
  bool quiet = false;
  bool json = false;
};

const std::map<std::string, RecallTask> kTasks = {{"passkey", RecallTask::passkey}, {"multikey", RecallTask::multikey}};
const std::map<std::string, RecallFiller> kFillers = {{"book", RecallFiller::book},
                                                      {"repeated", RecallFiller::repeated}};

template <class T>
std::string name_in(const std::map<std::string, T>& names, T value) {
  for (const auto& [name, each] : names) {
    if (each == value) return name;
  }
  return "unknown";
}

/// Trials that a length deserves: long ones take long.
std::size_t default_trials(std::size_t length) {
  return length <= 8192 ? 100 : length <= 65536 ? 20 : 5;
}

/// The book that comes with the program: in its installed data, or in the source folder that it was built in.
std::filesystem::path default_book() {
  constexpr const char* kName = "hound-of-the-baskervilles.txt";
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path installed = program.parent_path().parent_path() / "share" / "memlane" / kName;
  if (std::filesystem::exists(installed, error)) return installed;
  for (std::filesystem::path folder = program.parent_path(); folder.has_relative_path();
       folder = folder.parent_path()) {
    if (std::filesystem::exists(folder / "examples" / kName, error)) return folder / "examples" / kName;
  }
  input_error("--book: no book found beside the program; name a text for the filler");
}

struct Cell {
  std::string method;
  std::size_t length = 0;
  std::size_t trials = 0;
  std::size_t correct = 0;
  double seconds = 0;
};

class RecallBench {
 public:
  explicit RecallBench(RecallOptions options) : options_(std::move(options)), exec_(options_.model.make_exec()) {}
  int run();

 private:
  bool remembers(const RecallTrial& trial, const std::string& method);
  nlohmann::json report(bool complete) const;
  void print_table() const;

  RecallOptions options_;
  CpuExec exec_;
  std::optional<Model> model_;
  std::optional<Tokenizer> tokenizer_;
  MemorySettings settings_;
  Lookup lookup_;
  std::vector<Cell> cells_;
};

/// Whether the model answers a trial. memory: the document is read in windows into memory, then the question is asked.
/// none: the same model without memory layers sees the end of document and question, as much as fits its window.
bool RecallBench::remembers(const RecallTrial& trial, const std::string& method) {
  GenerationOptions generation;
  generation.max_tokens = 12;  // five digits, as many tokens at most, and something that ends the number
  MemorySettings settings = settings_;
  std::vector<std::int32_t> prompt = trial.question;
  if (method == "none") {
    settings.mem_layers.clear();
    const std::size_t room = settings.window - std::min(settings.window - 1, generation.max_tokens);
    prompt.insert(prompt.begin(), trial.document.begin(), trial.document.end());
    prompt.erase(prompt.begin(), prompt.end() - static_cast<std::ptrdiff_t>(std::min(prompt.size(), room)));
  }
  Session session(exec_, *model_, settings, lookup_);
  session.set_stop_flag(&interrupt_flag());
  if (method == "memory") {
    for (std::size_t begin = 0; begin < trial.document.size(); begin += settings.window) {
      const std::size_t count = std::min(settings.window, trial.document.size() - begin);
      session.read_window(std::span(trial.document).subspan(begin, count));
    }
  }
  const Generated generated = generate(session, *model_, *tokenizer_, prompt, std::min(prompt.size(), settings.window),
                                       generation, false, [](std::string_view) {});
  if (generated.stop == "interrupted") throw Interrupted("stopped");
  return answers(generated.text, trial.answer);
}

nlohmann::json RecallBench::report(bool complete) const {
  nlohmann::json cells = nlohmann::json::array();
  for (const Cell& cell : cells_) {
    const WilsonInterval interval = wilson_interval(cell.correct, cell.trials);
    cells.push_back(
        {{"task", name_in(kTasks, options_.task)},
         {"filler", name_in(kFillers, options_.filler)},
         {"method", cell.method},
         {"length", cell.length},
         {"trials", cell.trials},
         {"correct", cell.correct},
         {"accuracy", cell.trials > 0 ? static_cast<double>(cell.correct) / static_cast<double>(cell.trials) : 0.0},
         {"wilson_low", interval.low},
         {"wilson_high", interval.high},
         {"seconds_per_trial", cell.trials > 0 ? cell.seconds / static_cast<double>(cell.trials) : 0.0}});
  }
  return {{"model", options_.model.model},
          {"model_fingerprint", model_->fingerprint},
          {"mem_layers", settings_.mem_layers},
          {"window", settings_.window},
          {"compute", name_of(model_->compute)},
          {"lookup", lookup_.name()},
          {"seed", options_.seed},
          {"complete", complete},
          {"cells", cells}};
}

void RecallBench::print_table() const {
  fmt::print("{:8} {:8} {:7} {:>9} {:>8} {:>9} {:>9}  {}\n", "task", "filler", "method", "length", "correct",
             "accuracy", "s/trial", "95 % interval");
  for (const Cell& cell : cells_) {
    const WilsonInterval interval = wilson_interval(cell.correct, cell.trials);
    const double trials = static_cast<double>(std::max<std::size_t>(cell.trials, 1));
    fmt::print("{:8} {:8} {:7} {:>9} {:>8} {:>7.1f} % {:>9.2f}  {:.1f} - {:.1f} %\n", name_in(kTasks, options_.task),
               name_in(kFillers, options_.filler), cell.method, cell.length,
               fmt::format("{}/{}", cell.correct, cell.trials), 100 * static_cast<double>(cell.correct) / trials,
               cell.seconds / trials, 100 * interval.low, 100 * interval.high);
  }
}

int RecallBench::run() {
  interrupt_flag();
  lookup_ = options_.model.lookup();
  if (options_.trials == 0U) input_error("--trials 0: expected at least 1 trial");
  const bool with_book = options_.filler == RecallFiller::book;
  std::optional<MappedFile> book;
  if (with_book) book.emplace(open_text(options_.book.empty() ? default_book() : std::filesystem::path(options_.book)));
  tokenizer_.emplace(Tokenizer::open(options_.model.model));
  model_.emplace(load_model(exec_, options_.model.model, options_.model.compute_type()));
  require_vocabulary(*tokenizer_, model_->config, options_.model.model);
  settings_ = options_.model.settings(model_->config);
  const bool with_memory =
      std::find(options_.methods.begin(), options_.methods.end(), "memory") != options_.methods.end();
  if (with_memory && settings_.mem_layers.empty()) {
    input_error("{}: no memory layers to measure; choose some with --mem-layers", options_.model.model);
  }
  const RecallTrials trials(*tokenizer_, with_book ? book->text() : std::string_view());

  bool complete = true;
  for (const std::size_t length : options_.lengths) {
    for (const std::string& method : options_.methods) {
      Cell& cell = cells_.emplace_back(Cell{method, length, 0, 0, 0});
      const std::size_t wanted = options_.trials.value_or(default_trials(length));
      Progress progress(fmt::format("{} {}", method, length), 0, wanted * length, !options_.quiet);
      while (complete && cell.trials < wanted) {
        try {
          cell.correct +=
              remembers(trials.make({options_.task, options_.filler, length}, options_.seed, cell.trials), method) ? 1
                                                                                                                   : 0;
        } catch (const Interrupted&) {
          complete = false;
          break;
        }
        progress.update(++cell.trials * length);
        complete = !interrupt_flag();
      }
      cell.seconds = progress.seconds();
    }
  }
  if (options_.json) {
    fmt::print("{}\n", report(complete).dump(2));
  } else {
    print_table();
  }
  return complete ? 0 : 1;
}

}  // namespace

Subcommand add_bench_recall(CLI::App& bench) {
  CLI::App* app =
      bench.add_subcommand("recall", "Hide keys in long texts and ask for them: exact match of five digits");
  const auto options = std::make_shared<RecallOptions>();
  options->model.add_to(*app);
  app->add_option("--task", options->task, "passkey: one key; multikey: one of a hundred named keys")
      ->transform(CLI::CheckedTransformer(kTasks))
      ->default_str(name_in(kTasks, options->task));
  app->add_option("--filler", options->filler, "book: running text; repeated: the same five sentences")
      ->transform(CLI::CheckedTransformer(kFillers))
      ->default_str(name_in(kFillers, options->filler));
  app->add_option("--book", options->book, "Text for book filler (default: the book that comes with memlane)");
  app->add_option("--lengths", options->lengths, "Tokens of text and question together, separated by commas")
      ->delimiter(',')
      ->capture_default_str();
  app->add_option("--trials", options->trials,
                  "Trials of each length (default: 100 up to 8192 tokens, 20 up to 65536, then 5)");
  app->add_option("--methods", options->methods, "memory, and none: the end of the text in one window")
      ->delimiter(',')
      ->check(CLI::IsMember({"memory", "none"}))
      ->capture_default_str();
  app->add_option("--seed", options->seed, "Same seed, same texts")->capture_default_str();
  app->add_flag("--quiet", options->quiet, "No progress");
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return RecallBench(*options).run(); }};
}

}  // namespace memlane
