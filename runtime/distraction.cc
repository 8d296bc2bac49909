#include "runtime/distraction.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "runtime/memory_weights.h"
#include "runtime/perplexity.h"
#include "runtime/session.h"

namespace memlane {

std::vector<DistractionDocument> cut_documents(std::span<const std::vector<std::int32_t>> texts, std::size_t memory,
                                               std::size_t targets, std::size_t count) {
  std::vector<DistractionDocument> documents;
  const std::size_t length = memory + targets;
  for (std::size_t piece = 0; documents.size() < count; ++piece) {
    const std::size_t before = documents.size();
    for (const std::vector<std::int32_t>& text : texts) {
      if (documents.size() == count || text.size() / length <= piece) continue;
      const auto ids = std::span(text).subspan(piece * length, length);
      documents.push_back({ids.first(memory), ids.last(targets)});
    }
    if (documents.size() == before) break;
  }
  return documents;
}

std::vector<DistractionTrial> make_trials(std::size_t documents, std::size_t trials, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto shuffled = [&] {  // std::shuffle is not the same everywhere
    std::vector<std::size_t> order(documents);
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::size_t i = documents; i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    return order;
  };
  const std::vector<std::size_t> rights = shuffled();
  std::vector<DistractionTrial> result;
  for (std::size_t trial = 0; trial < trials; ++trial) {
    const std::size_t right = rights[trial % documents];
    std::vector<std::size_t> others = shuffled();
    std::erase(others, right);
    result.push_back({right, std::move(others)});
  }
  return result;
}

DistractionReader::DistractionReader(CpuExec& exec, const Model& model, const MemorySettings& settings,
                                     const Lookup& lookup, std::vector<DistractionDocument> documents, int bos,
                                     const std::atomic<bool>* stop)
    : exec_(exec),
      model_(model),
      settings_(settings),
      lookup_(lookup),
      documents_(std::move(documents)),
      bos_(bos),
      stop_(stop) {}

void DistractionReader::read(const std::function<void(std::size_t)>& progress) {
  for (const DistractionDocument& document : documents_) {
    std::vector<std::int32_t> ids = {bos_};
    ids.insert(ids.end(), document.memory.begin(), document.memory.end());
    Session session(exec_, model_, settings_, lookup_);
    session.set_stop_flag(stop_);
    for (std::size_t begin = 0; begin < ids.size(); begin += settings_.window) {
      session.read_window(std::span(ids).subspan(begin, std::min(settings_.window, ids.size() - begin)));
    }
    memories_.push_back(std::move(session.own_memory()));
    progress(memories_.size());
  }
}

DistractionResult DistractionReader::run(const DistractionTrial& trial, std::size_t documents) const {
  MEMLANE_EXPECTS(memories_.size() == documents_.size() && documents <= documents_.size());
  std::vector<const DocumentMemory*> seen;
  if (documents > 0) seen.push_back(&memories_[trial.right]);
  for (std::size_t i = 0; i + 1 < documents; ++i) seen.push_back(&memories_[trial.distractors[i]]);
  const std::span<const std::int32_t> ids = documents_[trial.right].targets;
  Session session(exec_, model_, settings_, lookup_, seen);
  session.set_stop_flag(stop_);
  MemoryWeights weights;
  session.set_record(&weights);
  std::vector<float> logits(ids.size() * model_.config.vocab_size);
  const View<float, 2> all(logits.data(), {ids.size(), model_.config.vocab_size});
  session.call(ids, ids.size(), all);

  DistractionResult result;
  result.nll = sum_nll(all, ids);
  result.tokens = ids.size() - 1;
  if (documents == 0) return result;
  const auto mean_of_first = [&](std::size_t entries) {
    const auto end = weights.sums.begin() + static_cast<std::ptrdiff_t>(entries);
    return std::accumulate(weights.sums.begin(), end, 0.0) / static_cast<double>(weights.tokens);
  };
  result.right = mean_of_first(memories_[trial.right].entries());
  result.memory = mean_of_first(weights.sums.size());
  return result;
}

}  // namespace memlane
