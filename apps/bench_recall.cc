#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/bench_methods.h"
#include "apps/commands.h"
#include "apps/count_option.h"
#include "apps/documents.h"
#include "apps/generation.h"
#include "apps/interrupt.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "apps/value_option.h"
#include "runtime/recall.h"
#include "runtime/recall_scorer.h"

namespace memlane {

namespace {

struct RecallOptions {
  ModelOptions model;
  RecallTask task = RecallTask::passkey;
  RecallFiller filler = RecallFiller::book;
  std::string book;
  std::vector<std::size_t> lengths = {2048, 8192, 32768};
  std::vector<double> depths;
  std::optional<std::size_t> trials;
  std::vector<std::string> methods = {"memory", "none"};
  std::uint64_t seed = 1;
  bool quiet = false;
  bool json = false;
};

/// Trials of a length that are looked at before anything runs: their questions differ by a few tokens.
constexpr std::size_t kTrialsLookedAt = 1000;

const std::map<std::string, RecallTask> kTasks = {{"passkey", RecallTask::passkey},
                                                  {"multikey", RecallTask::multikey},
                                                  {"keyvalue", RecallTask::keyvalue},
                                                  {"needle", RecallTask::needle}};
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

/// The trials of one method at one place of the grid.
struct Cell {
  const Method* method = nullptr;
  MethodSettings settings = {};
  RecallSetting setting = {};
  std::size_t wanted = 0;
  std::size_t trials = 0;
  std::size_t correct = 0;
  double answer_logprob = 0;  // summed over the trials
  double seconds = 0;

  double mean(double sum) const { return trials > 0 ? sum / static_cast<double>(trials) : 0.0; }
  WilsonInterval interval() const { return wilson_interval(correct, trials); }
};

class RecallBench {
 public:
  explicit RecallBench(RecallOptions options) : options_(std::move(options)), exec_(options_.model.make_exec()) {}
  int run();

 private:
  void check() const;
  std::vector<Cell> plan(const RecallTrials& trials) const;
  bool run_cell(Cell& cell, const RecallTrials& trials);
  RecallScore score(const Cell& cell, const RecallTrial& trial, const std::function<void(std::size_t)>& progress);
  nlohmann::json report(bool complete) const;
  void print_table() const;

  RecallOptions options_;
  CpuExec exec_;
  std::optional<Model> model_;
  std::optional<Tokenizer> tokenizer_;
  std::vector<Method> methods_;
  MemorySettings settings_;
  Lookup lookup_;
  std::vector<Cell> cells_;
};

RecallScore RecallBench::score(const Cell& cell, const RecallTrial& trial,
                               const std::function<void(std::size_t)>& progress) {
  std::vector<std::int32_t> prompt = trial.document;
  prompt.insert(prompt.end(), trial.question.begin(), trial.question.end());
  std::vector<float> logits(model_->config.vocab_size);
  const auto read = [&](TextReader& reader) { reader.read(prompt, trial.question.size(), kMostAnswerTokens, logits); };
  const ReadingContext context{exec_, *model_, lookup_, &interrupt_flag(), progress};
  TextReader reader(context, cell.settings);
  read(reader);
  return score_answer(reader, logits, trial, *model_, *tokenizer_, [&](const auto& use) {
    TextReader second(context, cell.settings);
    read(second);
    return use(second, logits);
  });
}

/// False if it was interrupted.
bool RecallBench::run_cell(Cell& cell, const RecallTrials& trials) {
  const std::size_t length = cell.setting.length;
  const std::string depth = cell.setting.depth ? fmt::format(" depth {:g}", *cell.setting.depth) : "";
  Progress progress(fmt::format("{} {}{}", cell.method->text(), length, depth), 0, cell.wanted * length,
                    !options_.quiet);
  const auto finish = [&](bool complete) {
    cell.seconds = progress.seconds();
    return complete;
  };
  while (cell.trials < cell.wanted) {
    if (interrupt_flag()) return finish(false);
    try {
      const std::size_t before = cell.trials * length;
      const RecallScore score =
          this->score(cell, trials.make(cell.setting, options_.seed, cell.trials),
                      [&](std::size_t done) { progress.update(before + std::min(done, length)); });
      cell.correct += score.correct ? 1 : 0;
      cell.answer_logprob += score.answer_logprob;
    } catch (const Interrupted&) {
      return finish(false);
    }
    progress.update(++cell.trials * length);
  }
  return finish(true);
}

nlohmann::json RecallBench::report(bool complete) const {
  nlohmann::json cells = nlohmann::json::array();
  for (const Cell& cell : cells_) {
    if (cell.trials == 0) continue;  // stopped before its first was done
    nlohmann::json depth;            // null: at random
    if (cell.setting.depth) depth = *cell.setting.depth;
    cells.push_back({{"task", name_in(kTasks, options_.task)},
                     {"filler", name_in(kFillers, options_.filler)},
                     {"method", cell.method->text()},
                     {"length", cell.setting.length},
                     {"depth", depth},
                     {"window", cell.settings.memory.window},
                     {"trials", cell.trials},
                     {"correct", cell.correct},
                     {"accuracy", cell.mean(static_cast<double>(cell.correct))},
                     {"wilson_low", cell.interval().low},
                     {"wilson_high", cell.interval().high},
                     {"answer_logprob", cell.mean(cell.answer_logprob)},
                     {"seconds_per_trial", cell.mean(cell.seconds)}});
  }
  return {{"bench", "recall"},
          {"model", options_.model.model},
          {"model_fingerprint", model_->fingerprint},
          {"mem_layers", settings_.mem_layers},
          {"window", settings_.window},
          {"compute", name_of(model_->precision.compute)},
          {"weights", name_of(model_->precision.weights)},
          {"lookup", lookup_.name()},
          {"seed", options_.seed},
          {"complete", complete},
          {"cells", cells}};
}

void RecallBench::print_table() const {
  std::size_t width = 7;
  for (const Cell& cell : cells_) width = std::max(width, cell.method->text().size());
  fmt::print("{:8} {:8} {:{}} {:>9} {:>6} {:>8} {:>9} {:>9} {:>9}  {}\n", "task", "filler", "method", width, "length",
             "depth", "correct", "accuracy", "ln p", "s/trial", "95 % interval");
  for (const Cell& cell : cells_) {
    if (cell.trials == 0) continue;
    const std::string depth = cell.setting.depth ? fmt::format("{:g}", *cell.setting.depth) : "random";
    fmt::print("{:8} {:8} {:{}} {:>9} {:>6} {:>8} {:>7.1f} % {:>9.2f} {:>9.2f}  {:.1f} - {:.1f} %\n",
               name_in(kTasks, options_.task), name_in(kFillers, options_.filler), cell.method->text(), width,
               cell.setting.length, depth, fmt::format("{}/{}", cell.correct, cell.trials),
               100 * cell.mean(static_cast<double>(cell.correct)), cell.mean(cell.answer_logprob),
               cell.mean(cell.seconds), 100 * cell.interval().low, 100 * cell.interval().high);
  }
}

void RecallBench::check() const {
  check_lengths("--lengths", options_.lengths);
  for (const double depth : options_.depths) {
    if (!(depth >= 0 && depth <= 1)) input_error("--depths {}: expected shares of the text from 0 to 1", depth);
  }
}

/// Every cell, with its settings: what does not fit is said before anything runs.
std::vector<Cell> RecallBench::plan(const RecallTrials& trials) const {
  require_lookup(model_->config, lookup_);
  std::vector<std::optional<double>> depths(options_.depths.begin(), options_.depths.end());
  if (depths.empty()) depths.emplace_back();
  std::vector<Cell> cells;
  for (const std::size_t length : options_.lengths) {
    const std::size_t wanted = options_.trials.value_or(default_trials(length));
    std::size_t question = 0;
    for (std::size_t trial = 0; trial < std::min(wanted, kTrialsLookedAt); ++trial) {
      const RecallSetting setting = {options_.task, options_.filler, length, {}};
      question = std::max(question, trials.question_tokens(setting, options_.seed, trial));
    }
    for (const std::optional<double>& depth : depths) {
      for (const Method& method : methods_) {
        Cell& cell = cells.emplace_back();
        cell.method = &method;
        cell.settings = method.settings(model_->config, settings_, length, kMostAnswerTokens);
        cell.setting = {options_.task, options_.filler, length, depth};
        cell.wanted = wanted;
        require_question_room(cell.settings, question, kMostAnswerTokens, length, method.text());
        require_method_room(model_->config, cell.settings, model_->precision.compute, lookup_, length, method.text());
      }
    }
  }
  return cells;
}

int RecallBench::run() {
  interrupt_flag();
  check();
  lookup_ = options_.model.lookup(*std::max_element(options_.lengths.begin(), options_.lengths.end()), options_.quiet);
  methods_ = parse_methods(options_.methods);
  const bool with_book = options_.filler == RecallFiller::book && options_.task != RecallTask::keyvalue;
  std::optional<MappedFile> book;
  if (with_book) book.emplace(open_text(options_.book.empty() ? default_book() : std::filesystem::path(options_.book)));
  tokenizer_.emplace(Tokenizer::open(options_.model.model));
  model_.emplace(load_model(exec_, options_.model.model, options_.model.precision(), options_.model.device_choice()));
  require_vocabulary(*tokenizer_, model_->config, options_.model.model);
  settings_ = options_.model.settings(model_->config);
  const RecallTrials trials(*tokenizer_, with_book ? book->text() : std::string_view());

  bool complete = true;
  for (const Cell& planned : plan(trials)) {
    const bool any_finished = !cells_.empty();
    Cell& cell = cells_.emplace_back(planned);
    complete = run_cell_safely(cell_name(*cell.method, cell.setting.length), any_finished,
                               [&] { return run_cell(cell, trials); });
    if (!complete) break;
  }
  if (options_.json) {
    print_json(report(complete));
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
  add_choice(*app, "--task", options->task, kTasks,
             "passkey: one key; multikey: one of a hundred named keys; keyvalue: one of a list of nothing but keys and "
             "values; needle: a fact asked for in other words");
  add_choice(*app, "--filler", options->filler, kFillers, "book: running text; repeated: the same five sentences");
  app->add_option("--book", options->book, "Text for book filler (default: the book that comes with memlane)");
  add_counts(*app, "--lengths", options->lengths, "Tokens of text and question together, separated by commas");
  add_numbers(*app, "--depths", options->depths,
              "Where what is asked for stands, from 0 (beginning) to 1, separated by commas (default: at random)");
  add_count(*app, "--trials", options->trials,
            "Trials of each length and depth (default: 100 up to 8192 tokens, 20 up to 65536, then 5)", {.least = 1});
  add_methods(*app, options->methods);
  add_count(*app, "--seed", options->seed, "Same seed, same texts", {.most = std::numeric_limits<std::size_t>::max()});
  app->add_flag("--quiet", options->quiet, "No progress");
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return RecallBench(*options).run(); }};
}

}  // namespace memlane
