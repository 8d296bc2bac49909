// What reading a long text with only so many windows kept costs and keeps: everything, the newest, the most attended
// to. Each trial reads two texts that differ in where their pass key stands: early, in the first half, and late, in the
// windows that are still kept at the end if the oldest go; from trial to trial at another place of these.
//   build/release/bench/bench_eviction [MODEL BOOK [TOKENS [KEPT_WINDOWS [TRIALS]]]]

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/stopwatch.h"
#include "memory/mapped_file.h"
#include "runtime/median.h"
#include "runtime/perplexity.h"
#include "runtime/recall.h"
#include "runtime/tokenizer.h"
#include "runtime/window_eviction.h"

namespace memlane {
namespace {

constexpr std::size_t kScoredWindows = 8;  // the last ones

struct Way {
  const char* name;
  std::optional<EvictionPolicy> policy;
};

/// To the question for the key.
struct Answer {
  double logprob = 0;     // of the key
  std::size_t found = 0;  // 1 if greedy generation gives it

  void add(const Answer& other) {
    logprob += other.logprob;
    found += other.found;
  }
};

enum Place { early, late, kPlaces };

/// Sums over trials.
struct Result {
  std::vector<double> nll;                   // of each text: of the tokens of the last windows
  std::size_t scored = 0;                    // those tokens, of all texts
  std::vector<double> seconds;               // of each window before which as much was kept as may be
  Answer of_kept[kPlaces], of_all[kPlaces];  // from the windows that were kept, and from all that were read
};

struct Bench {
  CpuExec& exec;
  const Model& model;
  const MemorySettings& settings;
};

std::vector<float> logits_of(Session& session, const Bench& bench, std::span<const std::int32_t> ids,
                             std::size_t wanted) {
  const std::size_t vocab = bench.model.config.vocab_size;
  std::vector<float> logits(wanted * vocab);
  session.call(ids, ids.size(), {logits.data(), {wanted, vocab}});
  return logits;
}

/// Asks for the key with a memory that is seen.
Answer ask(const Bench& bench, const DocumentMemory& memory, const RecallTrial& trial) {
  const DocumentMemory* const documents = &memory;
  Session session(bench.exec, bench.model, bench.settings, Lookup{}, {&documents, 1});
  std::vector<float> logits = logits_of(session, bench, trial.question, 1);
  Answer answer = {.logprob = 0, .found = 1};
  for (const std::int32_t id : trial.answer_ids) {
    answer.logprob -= token_nll(logits, id);
    if (std::max_element(logits.begin(), logits.end()) - logits.begin() != id) answer.found = 0;
    logits = logits_of(session, bench, {&id, 1}, 1);
  }
  return answer;
}

void score_window(const Bench& bench, const DocumentMemory& memory, std::span<const std::int32_t> ids, Result& result) {
  const DocumentMemory* const documents = &memory;
  Session session(bench.exec, bench.model, bench.settings, Lookup{}, {&documents, 1});
  const std::vector<float> logits = logits_of(session, bench, ids, ids.size());
  const std::size_t vocab = bench.model.config.vocab_size;
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
    result.nll.back() += token_nll(std::span(logits).subspan(i * vocab, vocab), ids[i + 1]);
    ++result.scored;
  }
}

Segment copy_of(const EntryShape& shape, const Segment& segment) {
  Buffer<std::byte> bytes(segment.bytes().size());
  std::copy(segment.bytes().begin(), segment.bytes().end(), bytes.data());
  return {shape, segment.count(), std::move(bytes)};
}

void read(const Bench& bench, const Way& way, const RecallTrial& trial, Place place, Result& result) {
  const std::span<const std::int32_t> ids = trial.document;
  const std::size_t window = bench.settings.window;
  const EntryShape shape = entry_shape(bench.model.config, bench.settings);
  const std::size_t kept = way.policy ? way.policy->entries : std::numeric_limits<std::size_t>::max();
  Session session(bench.exec, bench.model, bench.settings, Lookup{});
  EvictingReader reader(session, bench.settings, way.policy);
  DocumentMemory all(shape, Lookup{});
  result.nll.push_back(0);
  for (std::size_t begin = 0; begin < ids.size(); begin += window) {
    const auto of_window = ids.subspan(begin, std::min(window, ids.size() - begin));
    const DocumentMemory& memory = session.own_memory();
    if (begin + kScoredWindows * window >= ids.size()) score_window(bench, memory, of_window, result);
    const bool is_full = begin >= kept && of_window.size() == window;
    const Stopwatch watch;
    for (const Segment& segment : reader.read_window(of_window)) all.append(copy_of(shape, segment));
    reader.evict();
    if (!is_full) continue;
    result.seconds.push_back(watch.seconds());
  }
  result.of_kept[place].add(ask(bench, session.own_memory(), trial));
  result.of_all[place].add(ask(bench, all, trial));
}

/// oldest: of the way that evicts the oldest windows.
void print(const Way& way, const Result& result, const Result& oldest, std::size_t trials) {
  const double nll = std::accumulate(result.nll.begin(), result.nll.end(), 0.0);
  std::size_t lower = 0;
  for (std::size_t i = 0; i < result.nll.size(); ++i) lower += result.nll[i] < oldest.nll[i] ? 1U : 0U;
  fmt::print("{:<22}perplexity of the last {} windows {:.3f} (lower than evict-oldest's in {} of {} texts)", way.name,
             kScoredWindows, std::exp(nll / static_cast<double>(result.scored)), lower, result.nll.size());
  if (!result.seconds.empty()) fmt::print("; {:.3f} s a window", median(result.seconds));
  fmt::print("\n");
  for (const Place place : {early, late}) {
    const auto answer = [&](const Answer& each) {
      return fmt::format("{} of {} (ln p {:.2f})", each.found, trials, each.logprob / static_cast<double>(trials));
    };
    fmt::print("  {} keys found: {} in the windows kept, {} in all\n", place == early ? "early" : "late",
               answer(result.of_kept[place]), answer(result.of_all[place]));
  }
}

/// Where a trial's key stands: 0 at the beginning of the text, 1 at its end.
double depth_of(Place place, std::size_t trial, std::size_t trials, double kept_share) {
  const double at = (static_cast<double>(trial) + 0.5) / static_cast<double>(trials);
  return place == early ? at / 2 : 1 - at * kept_share;
}

void run(const std::string& folder, const std::string& book, std::size_t tokens, std::size_t windows,
         std::size_t trials) {
  CpuExec exec;
  const Model model = load_model(exec, folder);
  const MemorySettings settings = resolve_memory_settings(model.config, {});
  require_attention(settings);
  const Bench bench = {exec, model, settings};
  const Tokenizer tokenizer = Tokenizer::open(folder);
  const MappedFile text(book, "book");
  const RecallTrials maker(tokenizer, {reinterpret_cast<const char*>(text.bytes().data()), text.bytes().size()});
  using Rule = EvictionPolicy::Rule;
  const std::size_t kept = windows * settings.window;
  const std::vector<Way> ways = {{"everything", std::nullopt},
                                 {"evict-oldest", EvictionPolicy{Rule::oldest, kept}},
                                 {"evict-least-attended", EvictionPolicy{Rule::least_attended, kept}}};
  if (windows < 2 || trials == 0 || kept >= tokens) {
    input_error(
        "expected two windows or more to be kept of a text that is longer, and a trial or more, found {}, {} and {}",
        windows, tokens, trials);
  }
  // The last window of a text may be short.
  const double kept_share = static_cast<double>(kept - settings.window) / static_cast<double>(tokens);
  std::vector<Result> results(ways.size());
  for (std::size_t number = 0; number < trials; ++number) {
    for (const Place place : {early, late}) {
      const double depth = depth_of(place, number, trials, kept_share);
      const RecallTrial trial = maker.make({RecallTask::passkey, RecallFiller::book, tokens, depth}, 1, number);
      for (std::size_t i = 0; i < ways.size(); ++i) read(bench, ways[i], trial, place, results[i]);
    }
  }
  fmt::print("{} tokens, windows of {}, {} kept, {} trials of 2 texts, {} threads\n", tokens, settings.window, windows,
             trials, exec.threads());
  for (std::size_t i = 0; i < ways.size(); ++i) print(ways[i], results[i], results[1], trials);
}

}  // namespace
}  // namespace memlane

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const auto number = [&](std::size_t at, std::size_t otherwise) {
    return arguments.size() > at ? std::strtoul(arguments[at].c_str(), nullptr, 10) : otherwise;
  };
  const std::string source = MEMLANE_SOURCE_DIR;
  try {
    memlane::run(!arguments.empty() ? arguments[0] : source + "/models/memlane-nano",
                 arguments.size() > 1 ? arguments[1] : source + "/examples/hound-of-the-baskervilles.txt",
                 number(2, 65536), number(3, 8), number(4, 4));
  } catch (const memlane::InputError& error) {
    fmt::print(stderr, "bench_eviction: {}\n", error.what());
    return 2;
  }
  return 0;
}
