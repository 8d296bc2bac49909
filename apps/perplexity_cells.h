#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "runtime/text_scoring.h"

namespace memlane {

/// Which tokens are scored and what each can see; docs/evaluation.md says it at length.
enum class Convention { memory, stride, one_pass, token_by_token, recompute };

const std::map<std::string, Convention>& conventions();
std::string name_of(Convention convention);
/// One line for people.
std::string description_of(Convention convention);

/// A text, tokenized.
struct EvaluationText {
  std::string path;
  std::vector<std::int32_t> ids;  ///< without BOS
};

/// One number of the table: a text read by a method at a length, by a convention.
struct PerplexityCell {
  const EvaluationText* text = nullptr;
  const Method* method = nullptr;
  MethodSettings settings = {};
  Convention convention = Convention::stride;
  std::size_t length = 0;   ///< tokens that a target can see at most
  std::size_t stride = 0;   ///< of stride and recompute
  std::size_t start = 0;    ///< tokens of the text before the first that is used (stride: before the first target)
  std::size_t targets = 0;  ///< of stride and memory
  bool keeps_logits = false;

  TargetScores scores = {};
  std::vector<float> logits = {};  ///< if kept: [places of recompute, vocab]
  double seconds = 0;

  /// Tokens that computing it takes, for the progress line.
  std::size_t work() const;
};

/// Computes a cell of any convention. bos: -1 for none. context.progress hears of tokens done, of work().
/// If it throws, such as Interrupted, the cell has no scores.
void compute(const ReadingContext& context, int bos, PerplexityCell& cell);

/// Where dynamic scalings were read token by token: for every text, family and length with a consistent reading, what
/// the inconsistent and the recomputed one differ from it. One object for each.
nlohmann::json compare_dynamic(const std::vector<PerplexityCell>& cells, std::size_t vocab);

}  // namespace memlane
