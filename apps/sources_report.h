#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "memory/memory_file.h"
#include "runtime/memory_weights.h"
#include "runtime/tokenizer.h"

namespace memlane {

/// Where in the documents an answer came from, by the attention that went there.
class SourcesReport {
 public:
  /// weights: of an answer's tokens. ids: of the documents asked, in the order in which the session saw them. most:
  /// spans to report.
  SourcesReport(const MemoryFile& file, const std::vector<std::uint32_t>& ids, const Tokenizer& tokenizer,
                const MemoryWeights& weights, std::size_t most);

  const nlohmann::json& json() const { return json_; }
  /// The same as lines for people.
  std::string table() const;

 private:
  nlohmann::json json_;
};

}  // namespace memlane
