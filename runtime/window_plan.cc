#include "runtime/window_plan.h"

#include <algorithm>

namespace memlane {

WindowPlan plan_windows(std::size_t tokens, std::size_t window, std::size_t last_context_length) {
  WindowPlan plan;
  plan.tail = {tokens - std::min(tokens, last_context_length), tokens};
  for (std::size_t begin = 0; begin < plan.tail.begin; begin += window) {
    plan.prefix.push_back({begin, std::min(plan.tail.begin, begin + window)});
  }
  return plan;
}

std::size_t windows_for(std::size_t tokens, std::size_t window) {
  return (tokens + window - 1) / window;
}

}  // namespace memlane
