#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "runtime/model.h"
#include "runtime/safetensors.h"
#include "runtime/session.h"
#include "tests/reference/numbers.h"

namespace memlane::testing {

/// Where the sources are; a test program that runs on another machine than built it is told by the environment.
inline std::filesystem::path source_folder() {
  const char* elsewhere = std::getenv("MEMLANE_SOURCE_DIR");
  return elsewhere != nullptr ? elsewhere : MEMLANE_SOURCE_DIR;
}

inline std::filesystem::path golden_folder(const std::string& name) {
  return source_folder() / "tests" / "golden" / name;
}

inline std::filesystem::path stories260k_folder() {
  return source_folder() / "models" / "stories260K";
}

/// Largest absolute difference.
inline double max_difference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    worst = reference::worse(worst, difference);
  }
  return worst;
}

/// One call whose logits are all wanted: [tokens, vocab].
inline std::vector<float> call_for_logits(Session& session, const Model& model, std::span<const std::int32_t> ids,
                                          std::size_t last_context_length) {
  std::vector<float> logits(ids.size() * model.config.vocab_size);
  session.call(ids, last_context_length, {logits.data(), {ids.size(), model.config.vocab_size}});
  return logits;
}

}  // namespace memlane::testing
