#include "runtime/index_quality.h"

#include <algorithm>
#include <cmath>

#include "kernels/error.h"
#include "kernels/stopwatch.h"
#include "memory/list_settings.h"
#include "runtime/engine.h"
#include "runtime/perplexity.h"
#include "runtime/query_moments.h"
#include "runtime/session.h"

namespace memlane {

namespace {

constexpr std::size_t kTimedTokens = 48;
constexpr std::size_t kAnswerTokens = 8;

}  // namespace

IndexCase IndexCase::parse(std::string_view text, std::size_t k) {
  IndexCase result;
  result.text = text;
  result.lookup = Lookup::named(text.substr(0, text.find(':')));
  result.lookup.top_k = k;
  std::string_view rest =
      text.substr(std::min(text.size(), text.find(':') == text.npos ? text.size() : text.find(':') + 1));
  while (!rest.empty()) {
    const std::string_view each = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), each.size() + 1));
    if (each == "queries=on" && result.lookup.kind == Lookup::Kind::ivf) {
      result.queries = true;
      continue;
    }
    if (!each.starts_with("k=")) {
      if (!result.lookup.parameters.empty()) result.lookup.parameters += ',';
      result.lookup.parameters += each;
      continue;
    }
    char* end = nullptr;
    const std::string number(each.substr(2));
    const unsigned long long found = std::strtoull(number.c_str(), &end, 10);
    if (number.empty() || *end != '\0' || number[0] == '-' || found < 1 || found > (1U << 24)) {
      input_error("lookup '{}': expected k from 1 to {}", text, 1U << 24);
    }
    result.lookup.top_k = static_cast<std::size_t>(found);
  }
  if (result.lookup.kind == Lookup::Kind::automatic) input_error("lookup '{}': expected one by name, not auto", text);
  if (!result.lookup.has_index() && !result.lookup.parameters.empty()) {
    input_error("lookup '{}': expected no parameters but k for {}", text, result.lookup.name());
  }
  if (result.lookup.has_lists()) ListSettings::of(result.lookup);
  return result;
}

double IndexQuality::perplexity() const {
  return std::exp(nll / static_cast<double>(targets));
}

IndexProbe::IndexProbe(CpuExec& exec, const Model& model, const MemorySettings& settings, const std::atomic<bool>* stop)
    : exec_(exec), model_(model), settings_(settings), stop_(stop), shape_(entry_shape(model.config, settings)) {}

void IndexProbe::read(std::span<const std::int32_t> memory, std::span<const std::int32_t> targets, std::size_t stride,
                      const std::function<void(std::size_t)>& progress) {
  MEMLANE_EXPECTS(targets.size() % settings_.window == 0 && stride >= 1);
  Session session(exec_, model_, settings_, Lookup());
  session.set_stop_flag(stop_);
  for (std::size_t begin = 0; begin < memory.size(); begin += settings_.window) {
    session.read_window(memory.subspan(begin, std::min(settings_.window, memory.size() - begin)));
    progress(std::min(memory.size(), begin + settings_.window));
  }
  memory_.emplace(std::move(session.own_memory()));
  targets_.assign(targets.begin(), targets.end());
  Memory dense(shape_, Lookup());
  dense.add(*memory_);
  if (memory.size() >= settings_.window) find_metrics(dense, memory.last(settings_.window));
  truths_.assign(shape_.layers.size(), {});
  std::size_t scored = 0;
  const auto record = [&](std::size_t slot, View<const float, 3> queries, float scale) {
    Truth& truth = truths_[slot];
    truth.layer_slot = slot;
    truth.scale = scale;
    for (std::size_t token = stride - 1; token < queries.extent(0); token += stride) {
      const auto row = queries[token];
      truth.queries.insert(truth.queries.end(), row.data(), row.data() + row.size());
      ++truth.tokens;
    }
  };
  score_targets(dense, targets_, record, scored);
  find_truth();
}

/// Moments of the queries of a window, which sees all of memory.
void IndexProbe::find_metrics(Memory& dense, std::span<const std::int32_t> window) {
  QueryMoments moments(shape_);
  std::size_t scored = 0;
  const auto add = [&](std::size_t slot, View<const float, 3> queries, float) { moments.add(slot, queries); };
  score_targets(dense, window, add, scored);
  metrics_ = moments.metrics();
}

void IndexProbe::read_trial(const RecallTrial& trial) {
  Session session(exec_, model_, settings_, Lookup());
  session.set_stop_flag(stop_);
  const std::span<const std::int32_t> ids = trial.document;
  for (std::size_t begin = 0; begin < ids.size(); begin += settings_.window) {
    session.read_window(ids.subspan(begin, std::min(settings_.window, ids.size() - begin)));
  }
  trials_.push_back(trial);
  trial_memories_.push_back(std::move(session.own_memory()));
}

View<const float, 3> IndexProbe::queries_of(const Truth& truth, std::size_t begin, std::size_t end) const {
  const View<const float, 3> all(truth.queries.data(), {truth.tokens, model_.config.num_heads, shape_.head_dim});
  return all.slice(begin, end);
}

void IndexProbe::find_truth() {
  Lookup exact = Lookup::named("exact");
  exact.top_k = kRecalled;
  Memory dense(shape_, Lookup()), best(shape_, exact);
  dense.add(*memory_);
  best.add(*memory_);
  for (Truth& truth : truths_) {
    const View<const float, 3> queries = queries_of(truth, 0, truth.tokens);
    PartialBuffer buffer;
    const AttentionPartial partial = buffer.get(truth.tokens, queries.extent(1), queries.extent(2));
    dense.attend(exec_, truth.layer_slot, queries, truth.scale, partial);
    truth.max.assign(partial.max.data(), partial.max.data() + partial.max.size());
    truth.weight.assign(partial.weight.data(), partial.weight.data() + partial.weight.size());
    truth.output.resize(truth.queries.size());
    finish(exec_, partial, {truth.output.data(), queries.extents()});
    const Memory::Selected selected = best.select(exec_, truth.layer_slot, queries, truth.scale);
    truth.best.assign(selected.ids.data(), selected.ids.data() + selected.ids.size());
  }
}

/// A memory over the same entries whose indexes were made window after window, as reading makes them.
DocumentMemory IndexProbe::document(const DocumentMemory& from, const IndexCase& each) {
  DocumentMemory made(shape_, each.lookup);
  if (each.queries) made.set_metrics(metrics_);
  for (const Segment& segment : from.segments()) {
    if (stop_ != nullptr && stop_->load()) throw Interrupted("stopped");
    made.append(Segment(shape_, segment.count(), segment.bytes().data()));
    made.update_indexes(exec_);
  }
  return made;
}

IndexQuality IndexProbe::measure(const IndexCase& each, const Tokenizer& tokenizer) {
  const Lookup& lookup = each.lookup;
  IndexQuality quality;
  Stopwatch watch;
  const DocumentMemory indexed = document(*memory_, each);
  quality.build_seconds = watch.seconds();
  quality.bytes = indexed.index_bytes();
  Memory memory(shape_, lookup);
  memory.add(indexed);
  SearchCount count;
  memory.set_count(&count);
  for (const Truth& truth : truths_) compare(memory, truth, quality);
  memory.set_count(nullptr);
  const double rows = static_cast<double>(count.rows), entries = static_cast<double>(memory_->entries());
  if (lookup.has_lists()) {
    quality.scanned = static_cast<double>(count.keys) / rows / entries;
    quality.compared = static_cast<double>(count.lists) / rows / entries;
  } else if (lookup.kind != Lookup::Kind::faiss) {
    quality.scanned = 1;
  }
  for (const Truth& truth : truths_) {
    PartialBuffer buffer;
    const std::size_t tokens = std::min(truth.tokens, kTimedTokens);
    const AttentionPartial partial = buffer.get(1, model_.config.num_heads, shape_.head_dim);
    watch.restart();
    for (std::size_t token = 0; token < tokens; ++token) {
      memory.attend(exec_, truth.layer_slot, queries_of(truth, token, token + 1), truth.scale, partial);
    }
    quality.seconds_per_token += watch.seconds() / static_cast<double>(tokens);
  }
  quality.nll = score_targets(memory, targets_, {}, quality.targets);
  for (std::size_t trial = 0; trial < trials_.size(); ++trial) {
    const DocumentMemory of_trial = document(trial_memories_[trial], each);
    quality.correct += answers_trial(trials_[trial], of_trial, lookup, tokenizer) ? 1 : 0;
    ++quality.trials;
  }
  return quality;
}

/// Adds a layer's part of the means.
void IndexProbe::compare(Memory& memory, const Truth& truth, IndexQuality& quality) {
  const std::size_t heads = model_.config.num_heads, dim = shape_.head_dim;
  const std::size_t rows = truth.tokens * heads;
  const View<const float, 3> queries = queries_of(truth, 0, truth.tokens);
  const double share = 1 / static_cast<double>(rows * truths_.size());
  PartialBuffer buffer;
  const AttentionPartial partial = buffer.get(truth.tokens, heads, dim);
  memory.attend(exec_, truth.layer_slot, queries, truth.scale, partial);
  std::vector<float> output(truth.output.size());
  finish(exec_, partial, {output.data(), queries.extents()});
  for (std::size_t row = 0; row < rows; ++row) {
    double apart = 0, length = 0;
    for (std::size_t i = row * dim; i < (row + 1) * dim; ++i) {
      apart += std::pow(static_cast<double>(output[i]) - static_cast<double>(truth.output[i]), 2);
      length += std::pow(static_cast<double>(truth.output[i]), 2);
    }
    quality.error += share * std::sqrt(apart / length);
    quality.weight += share * static_cast<double>(partial.weight.data()[row]) / static_cast<double>(truth.weight[row]) *
                      std::exp(static_cast<double>(partial.max.data()[row]) - static_cast<double>(truth.max[row]));
  }
  if (memory.lookup().kind == Lookup::Kind::dense) {
    quality.recall += share * static_cast<double>(rows);
    quality.mass += share * static_cast<double>(rows);
    return;
  }
  const Memory::Selected selected = memory.select(exec_, truth.layer_slot, queries, truth.scale);
  const std::size_t k = selected.ids.extent(2), best = truth.best.size() / rows;
  for (std::size_t row = 0; row < rows; ++row) {
    const std::int64_t* ids = selected.ids.data() + row * k;
    const auto end = std::find(ids, ids + k, -1);
    double mass = 0;
    std::size_t found = 0;
    for (const std::int64_t* id = ids; id < end; ++id) {
      mass += std::exp(static_cast<double>(selected.scores.data()[row * k + static_cast<std::size_t>(id - ids)]) *
                           static_cast<double>(truth.scale) -
                       static_cast<double>(truth.max[row]));
    }
    for (std::size_t i = row * best; i < (row + 1) * best; ++i) found += std::binary_search(ids, end, truth.best[i]);
    quality.mass += share * mass / static_cast<double>(truth.weight[row]);
    quality.recall += share * static_cast<double>(found) / static_cast<double>(best);
  }
}

/// -ln p of all targets but the first of each window.
double IndexProbe::score_targets(Memory& memory, std::span<const std::int32_t> targets,
                                 const Memory::Observer& observer, std::size_t& scored) {
  const std::size_t window = settings_.window, vocab = model_.config.vocab_size;
  std::vector<float> logits(window * vocab);
  const View<float, 2> all(logits.data(), {window, vocab});
  double nll = 0;
  memory.set_observer(observer);
  for (std::size_t begin = 0; begin < targets.size(); begin += window) {
    Engine engine(exec_, model_, settings_, memory);
    engine.set_stop_flag(stop_);
    const auto ids = targets.subspan(begin, window);
    engine.forward(ids, PassUntil::logits, all);
    for (std::size_t i = 0; i + 1 < window; ++i) nll += token_nll(all[i].flat(), ids[i + 1]);
    scored += window - 1;
  }
  memory.set_observer({});
  return nll;
}

bool IndexProbe::answers_trial(const RecallTrial& trial, const DocumentMemory& document, const Lookup& lookup,
                               const Tokenizer& tokenizer) {
  const DocumentMemory* const seen = &document;
  Session session(exec_, model_, settings_, lookup, {&seen, 1});
  session.set_stop_flag(stop_);
  std::vector<float> logits(model_.config.vocab_size);
  const View<float, 2> last(logits.data(), {1, logits.size()});
  session.call(trial.question, std::min(trial.question.size(), settings_.window), last);
  TextStream stream(tokenizer, false);
  std::string text;
  for (std::size_t i = 0; i < kAnswerTokens; ++i) {
    const auto id = static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    text += stream.push(id);
    session.call({&id, 1}, 1, last);
  }
  return answers(text + stream.finish(), trial.answer);
}

}  // namespace memlane
