#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "runtime/text_reader.h"

namespace memlane {

/// Logits of the tokens at places first ... first + rows - 1 of a text, [rows, vocab]. Those of a token predict the
/// next.
using LogitSink = std::function<void(std::size_t first, View<const float, 2> logits)>;

/// Ways to give every token of a text logits; conventions of perplexity. ids: the text, BOS included. Sinks hear of
/// each place at most once, in order. All throw Interrupted when stopped.
///
/// One pass from the first token to the last, the logits of every token: YaRN's truncated convention (Peng et al. 2023)
/// where the window holds the text. A shorter window moves to memory, or is dropped without memory layers, when it is
/// full; labels cross its border.
void read_in_one_pass(const ReadingContext& context, const MethodSettings& settings, std::span<const std::int32_t> ids,
                      const LogitSink& sink);

/// The same, every token a call of its own, as in generation: a dynamic scaling then has the length of each step.
void read_token_by_token(const ReadingContext& context, const MethodSettings& settings,
                         std::span<const std::int32_t> ids, const LogitSink& sink);

/// At every stride-th place everything up to it is read anew, so that no layer holds anything of another length; other
/// places have no logits. The cost grows with the square of the text over the stride.
void read_recomputed(const ReadingContext& context, const MethodSettings& settings, std::span<const std::int32_t> ids,
                     std::size_t stride, const LogitSink& sink);
/// The places that read_recomputed gives logits of.
std::vector<std::size_t> recomputed_places(std::size_t tokens, std::size_t stride);

/// Reads all of ids and gives the logits of the last `scored` tokens: a window of the sliding-window convention (Press
/// et al. 2022). A method without memory sees the end that fits its window; with memory the last context of the model's
/// settings stays local. scored: at most the window.
void read_for_end(const ReadingContext& context, const MethodSettings& settings, std::span<const std::int32_t> ids,
                  std::size_t scored, const LogitSink& sink);

/// -ln p of target tokens.
class TargetScores {
 public:
  /// Adds the targets that these logits predict; the last token of ids predicts none.
  void add(CpuExec& exec, std::span<const std::int32_t> ids, std::size_t first, View<const float, 2> logits);
  void add(std::size_t place, double nll) { scores_.emplace_back(place, nll); }

  /// The place of the predicting token and -ln p, in order.
  const std::vector<std::pair<std::size_t, double>>& all() const { return scores_; }
  std::size_t size() const { return scores_.size(); }
  double sum() const;
  double perplexity() const;
  /// Mean -ln p of the targets whose predicting token is at one of these places, in order. Others do not count.
  double mean_at(std::span<const std::size_t> places) const;

  struct CurvePoint {
    std::size_t position;  ///< the middle of the places of a bucket
    double nll;            ///< mean
  };
  /// The places cut into so many equal ranges.
  std::vector<CurvePoint> curve(std::size_t buckets) const;

 private:
  std::vector<std::pair<std::size_t, double>> scores_;
};

/// The mean over rows of the divergence sum p ln(p / q), p and q the distributions of logits [rows, vocab], in nats.
double mean_divergence(View<const float, 2> p, View<const float, 2> q);

}  // namespace memlane
