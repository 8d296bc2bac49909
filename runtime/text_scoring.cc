#include "runtime/text_scoring.h"

#include <algorithm>
#include <cmath>

#include "runtime/perplexity.h"

namespace memlane {

namespace {

void check_stop(const ReadingContext& context) {
  if (context.stop != nullptr && context.stop->load(std::memory_order_relaxed)) throw Interrupted("stopped");
}

void tell(const ReadingContext& context, std::size_t done) {
  if (context.progress) context.progress(done);
}

/// Tokens that the next call may bring so that windows are cut where one long call would cut them.
std::size_t next_piece(const Session& session, const MemorySettings& settings, std::size_t most) {
  const std::size_t room = settings.window - std::min(settings.window, session.local_length());
  return std::min(most, room > 0 ? room : settings.window);
}

double log_of_sum(std::span<const float> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - max);
  return max + std::log(sum);
}

}  // namespace

void read_in_one_pass(const ReadingContext& context, const MethodSettings& settings, std::span<const std::int32_t> ids,
                      const LogitSink& sink) {
  const std::size_t vocab = context.model.config.vocab_size;
  const std::size_t most = std::min(ids.size(), reading_piece(settings.memory));
  Session session(context.exec, context.model, settings.memory, context.lookup);
  session.set_stop_flag(context.stop);
  std::vector<float> logits(most * vocab);
  for (std::size_t begin = 0; begin < ids.size();) {
    const std::size_t count = std::min(next_piece(session, settings.memory, most), ids.size() - begin);
    const View<float, 2> rows(logits.data(), {count, vocab});
    session.call(ids.subspan(begin, count), count, rows);
    sink(begin, rows);
    begin += count;
    tell(context, begin);
  }
}

void read_token_by_token(const ReadingContext& context, const MethodSettings& settings,
                         std::span<const std::int32_t> ids, const LogitSink& sink) {
  Session session(context.exec, context.model, settings.memory, context.lookup);
  session.set_stop_flag(context.stop);
  std::vector<float> logits(context.model.config.vocab_size);
  const View<float, 2> row(logits.data(), {1, logits.size()});
  for (std::size_t place = 0; place < ids.size(); ++place) {
    session.call(ids.subspan(place, 1), 1, row);
    sink(place, row);
    tell(context, place + 1);
  }
}

std::vector<std::size_t> recomputed_places(std::size_t tokens, std::size_t stride) {
  MEMLANE_EXPECTS(stride > 0);
  std::vector<std::size_t> places;
  for (std::size_t place = stride - 1; place + 1 < tokens; place += stride) places.push_back(place);
  return places;
}

void read_recomputed(const ReadingContext& context, const MethodSettings& settings, std::span<const std::int32_t> ids,
                     std::size_t stride, const LogitSink& sink) {
  std::vector<float> logits(context.model.config.vocab_size);
  const View<float, 2> row(logits.data(), {1, logits.size()});
  std::size_t done = 0;
  for (const std::size_t place : recomputed_places(ids.size(), stride)) {
    const std::size_t seen = std::min(place + 1, settings.memory.window);
    Session session(context.exec, context.model, settings_of_length(settings.memory, seen), context.lookup);
    session.set_stop_flag(context.stop);
    session.call(ids.subspan(place + 1 - seen, seen), seen, row);
    sink(place, row);
    tell(context, done += seen);
  }
}

void read_for_end(const ReadingContext& context, const MethodSettings& settings, std::span<const std::int32_t> ids,
                  std::size_t scored, const LogitSink& sink) {
  const MemorySettings& memory = settings.memory;
  const std::size_t vocab = context.model.config.vocab_size;
  MEMLANE_EXPECTS(scored >= 1 && scored <= memory.window && scored <= ids.size());
  check_stop(context);
  Session session(context.exec, context.model, memory, context.lookup);
  session.set_stop_flag(context.stop);
  std::vector<float> logits(scored * vocab);
  const View<float, 2> rows(logits.data(), {scored, vocab});
  if (!memory.mem_layers.empty()) {
    session.call(ids, std::min(memory.window, std::max(scored, memory.last_context_length)), rows);
  } else {
    const auto seen = ids.last(std::min(ids.size(), memory.window));
    const std::size_t before = reads_in_pieces(memory) ? seen.size() - scored : 0;
    for (std::size_t begin = 0; begin < before;) {
      const std::size_t count = std::min(before - begin, reading_piece(memory));
      session.call(seen.subspan(begin, count), count, {});
      begin += count;
    }
    session.call(seen.subspan(before), seen.size() - before, rows);
  }
  sink(ids.size() - scored, rows);
  tell(context, ids.size());
}

void TargetScores::add(CpuExec& exec, std::span<const std::int32_t> ids, std::size_t first,
                       View<const float, 2> logits) {
  const std::size_t targets = std::min(logits.extent(0), ids.size() - std::min(ids.size(), first + 1));
  const std::size_t at = scores_.size();
  scores_.resize(at + targets);
  exec.pool().run(targets, [&](std::size_t i, std::size_t) {
    scores_[at + i] = {first + i, token_nll(logits[i].flat(), ids[first + i + 1])};
  });
}

double TargetScores::sum() const {
  double sum = 0;
  for (const auto& [place, nll] : scores_) sum += nll;
  return sum;
}

double TargetScores::perplexity() const {
  return std::exp(sum() / static_cast<double>(std::max<std::size_t>(size(), 1)));
}

double TargetScores::mean_at(std::span<const std::size_t> places) const {
  double sum = 0;
  std::size_t found = 0;
  for (const auto& [place, nll] : scores_) {
    if (!std::binary_search(places.begin(), places.end(), place)) continue;
    sum += nll;
    ++found;
  }
  return sum / static_cast<double>(std::max<std::size_t>(found, 1));
}

std::vector<TargetScores::CurvePoint> TargetScores::curve(std::size_t buckets) const {
  std::vector<CurvePoint> points;
  if (scores_.empty()) return points;
  const std::size_t first = scores_.front().first;
  const std::size_t range = scores_.back().first + 1 - first;
  std::vector<double> sums(buckets);
  std::vector<std::size_t> counts(buckets);
  for (const auto& [place, nll] : scores_) {
    const std::size_t bucket = (place - first) * buckets / range;
    sums[bucket] += nll;
    ++counts[bucket];
  }
  for (std::size_t i = 0; i < buckets; ++i) {
    if (counts[i] == 0) continue;
    points.push_back({first + (2 * i + 1) * range / (2 * buckets), sums[i] / static_cast<double>(counts[i])});
  }
  return points;
}

double mean_divergence(View<const float, 2> p, View<const float, 2> q) {
  MEMLANE_EXPECTS(p.extents() == q.extents() && !p.empty());
  double total = 0;
  for (std::size_t row = 0; row < p.extent(0); ++row) {
    const auto p_row = p[row].flat();
    const auto q_row = q[row].flat();
    const double p_norm = log_of_sum(p_row);
    const double q_norm = log_of_sum(q_row);
    for (std::size_t i = 0; i < p_row.size(); ++i) {
      const double log_p = static_cast<double>(p_row[i]) - p_norm;
      total += std::exp(log_p) * (log_p - static_cast<double>(q_row[i]) + q_norm);
    }
  }
  return total / static_cast<double>(p.extent(0));
}

}  // namespace memlane
