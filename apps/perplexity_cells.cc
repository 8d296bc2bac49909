#include "apps/perplexity_cells.h"

#include <algorithm>

#include "runtime/perplexity.h"

namespace memlane {

namespace {

/// BOS and `count` tokens of a text from `begin` on, BOS among them.
std::vector<std::int32_t> excerpt(const EvaluationText& text, std::size_t begin, std::size_t count, int bos) {
  std::vector<std::int32_t> ids;
  if (bos >= 0) ids.push_back(bos);
  const auto from = text.ids.begin() + static_cast<std::ptrdiff_t>(begin);
  ids.insert(ids.end(), from, from + static_cast<std::ptrdiff_t>(count - ids.size()));
  return ids;
}

void compute_memory(const ReadingContext& context, PerplexityCell& cell) {
  const PerplexityTask task{std::span(cell.text->ids).first(cell.start + cell.targets), cell.targets, cell.length};
  const std::size_t first = cell.start;
  std::size_t done = 0;
  perplexity_with_memory(
      context.exec, context.model, cell.settings.memory, context.lookup, task, context.stop,
      [&](std::size_t tokens, std::size_t) { context.progress(done = tokens); },
      [&](std::size_t place, double nll) { cell.scores.add(place - first, nll); });
}

void compute_stride(const ReadingContext& context, int bos, PerplexityCell& cell) {
  for (std::size_t begin = 0; begin < cell.targets; begin += cell.stride) {
    // A window of `length` tokens, BOS among them, that ends with the targets; the last token is a target alone.
    const std::size_t end = cell.start + begin + cell.stride;
    const std::size_t own = cell.length - (bos >= 0 ? 1 : 0);
    const std::vector<std::int32_t> window = excerpt(*cell.text, end - own, cell.length, bos);
    ReadingContext inner = context;
    inner.progress = {};
    read_for_end(inner, cell.settings, std::span(window).first(cell.length - 1), cell.stride,
                 [&](std::size_t first, View<const float, 2> logits) {
                   TargetScores scores;
                   scores.add(context.exec, window, first, logits);
                   for (const auto& [place, nll] : scores.all()) cell.scores.add(begin + place - first, nll);
                 });
    context.progress((begin / cell.stride + 1) * cell.length);
  }
}

void compute_pass(const ReadingContext& context, int bos, PerplexityCell& cell) {
  const std::vector<std::int32_t> ids = excerpt(*cell.text, cell.start, cell.length, bos);
  const std::vector<std::size_t> kept =
      cell.keeps_logits ? recomputed_places(ids.size(), cell.stride) : std::vector<std::size_t>();
  const LogitSink sink = [&](std::size_t first, View<const float, 2> logits) {
    cell.scores.add(context.exec, ids, first, logits);
    for (std::size_t i = 0; i < logits.extent(0); ++i) {
      if (!std::binary_search(kept.begin(), kept.end(), first + i)) continue;
      const auto row = logits[i].flat();
      cell.logits.insert(cell.logits.end(), row.begin(), row.end());
    }
  };
  switch (cell.convention) {
    case Convention::one_pass:
      return read_in_one_pass(context, cell.settings, ids, sink);
    case Convention::token_by_token:
      return read_token_by_token(context, cell.settings, ids, sink);
    default:
      return read_recomputed(context, cell.settings, ids, cell.stride, sink);
  }
}

const PerplexityCell* sibling(const std::vector<PerplexityCell>& cells, const PerplexityCell& of,
                              const std::string& mode) {
  const auto found = std::find_if(cells.begin(), cells.end(), [&](const PerplexityCell& each) {
    return each.text == of.text && each.length == of.length && each.method->family() == of.method->family() &&
           each.method->mode() == mode && each.scores.size() > 0;
  });
  return found == cells.end() ? nullptr : &*found;
}

}  // namespace

const std::map<std::string, Convention>& conventions() {
  static const std::map<std::string, Convention> names = {{"memory", Convention::memory},
                                                          {"stride", Convention::stride},
                                                          {"one-pass", Convention::one_pass},
                                                          {"token-by-token", Convention::token_by_token},
                                                          {"recompute", Convention::recompute}};
  return names;
}

std::string name_of(Convention convention) {
  for (const auto& [name, each] : conventions()) {
    if (each == convention) return name;
  }
  return "unknown";
}

std::string description_of(Convention convention) {
  switch (convention) {
    case Convention::memory:
      return "target windows one by one, all but the first token of each scored; the same targets for every size of "
             "memory";
    case Convention::stride:
      return "sliding window (Press et al. 2022): of each window of the length, its last tokens, as many as the "
             "stride, "
             "are scored; the same targets for every length";
    case Convention::one_pass:
      return "one pass over the length, every token but the first scored (YaRN's truncated convention); longer passes "
             "have more targets";
    case Convention::token_by_token:
      return "every token fed singly, every token but the first scored; a dynamic scaling has the length of each step";
    case Convention::recompute:
      return "everything read anew before every scored token; one token of every stride scored";
  }
  return "";
}

std::size_t PerplexityCell::work() const {
  switch (convention) {
    case Convention::memory:
      return length + targets;
    case Convention::stride:
      return targets / stride * length;
    case Convention::recompute: {
      std::size_t sum = 0;
      for (const std::size_t place : recomputed_places(length, stride)) {
        sum += std::min(place + 1, settings.memory.window);
      }
      return sum;
    }
    default:
      return length;
  }
}

void compute(const ReadingContext& context, int bos, PerplexityCell& cell) {
  try {
    switch (cell.convention) {
      case Convention::memory:
        return compute_memory(context, cell);
      case Convention::stride:
        return compute_stride(context, bos, cell);
      default:
        return compute_pass(context, bos, cell);
    }
  } catch (...) {
    cell.scores = {};
    throw;
  }
}

nlohmann::json compare_dynamic(const std::vector<PerplexityCell>& cells, std::size_t vocab) {
  nlohmann::json comparisons = nlohmann::json::array();
  for (const PerplexityCell& cell : cells) {
    if (cell.method->mode() != "consistent" || cell.scores.size() == 0) continue;
    nlohmann::json each = {{"text", cell.text->path}, {"method", cell.method->family()}, {"length", cell.length}};
    if (const PerplexityCell* inconsistent = sibling(cells, cell, "inconsistent")) {
      each["consistent_perplexity"] = cell.scores.perplexity();
      each["inconsistent_perplexity"] = inconsistent->scores.perplexity();
      each["consistent_below_inconsistent"] = cell.scores.sum() < inconsistent->scores.sum();
    }
    const PerplexityCell* recomputed = sibling(cells, cell, "recompute");
    if (recomputed != nullptr && recomputed->logits.size() == cell.logits.size()) {
      const std::vector<std::size_t> places = recomputed_places(cell.length, recomputed->stride);
      const std::size_t rows = cell.logits.size() / vocab;
      each["places"] = rows;
      each["recompute_nll"] = recomputed->scores.mean_at(places);
      each["consistent_nll"] = cell.scores.mean_at(places);
      each["consistent_minus_recompute_nll"] = cell.scores.mean_at(places) - recomputed->scores.mean_at(places);
      each["divergence_of_consistent_from_recompute"] =
          mean_divergence({recomputed->logits.data(), {rows, vocab}}, {cell.logits.data(), {rows, vocab}});
    }
    if (each.size() > 3) comparisons.push_back(each);
  }
  return comparisons;
}

}  // namespace memlane
