#pragma once

#include <cstddef>
#include <vector>

namespace memlane {

/// Tokens [begin, end) of a call.
struct TokenRange {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t size() const { return end - begin; }
  friend bool operator==(const TokenRange&, const TokenRange&) = default;
};

/// How a call is cut: the prefix into windows, the last tokens into the local context (LongLLaMA's _handle_long_input).
struct WindowPlan {
  std::vector<TokenRange> prefix;  ///< windows of `window` tokens, the last one may be shorter
  TokenRange tail;                 ///< the last min(tokens, last_context_length) tokens
};

WindowPlan plan_windows(std::size_t tokens, std::size_t window, std::size_t last_context_length);

/// Windows that a document of `tokens` tokens is read in when all of it goes to memory.
std::size_t windows_for(std::size_t tokens, std::size_t window);

}  // namespace memlane
