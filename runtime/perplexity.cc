#include "runtime/perplexity.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <vector>

#include "runtime/session.h"

namespace memlane {

double token_nll(std::span<const float> logits, std::int32_t id) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - max);
  return max + std::log(sum) - static_cast<double>(logits[static_cast<std::size_t>(id)]);
}

double sum_nll(View<const float, 2> logits, std::span<const std::int32_t> ids) {
  MEMLANE_EXPECTS(logits.extent(0) == ids.size());
  double nll = 0;
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) nll += token_nll(logits[i].flat(), ids[i + 1]);
  return nll;
}

PerplexityResult perplexity_with_memory(CpuExec& exec, const Model& model, const MemorySettings& settings,
                                        const Lookup& lookup, const PerplexityTask& task, const std::atomic<bool>* stop,
                                        const std::function<void(std::size_t, std::size_t)>& progress,
                                        const std::function<void(std::size_t, double)>& each) {
  const std::size_t window = settings.window;
  MEMLANE_EXPECTS(task.targets > 0 && task.targets % window == 0 && task.memory_tokens % window == 0);
  MEMLANE_EXPECTS(task.ids.size() >= task.targets + task.memory_tokens);
  const std::size_t first_target = task.ids.size() - task.targets;
  std::deque<DocumentMemory> recent;  // one for each window that the next window sees
  std::vector<float> logits(window * model.config.vocab_size);
  PerplexityResult result;
  for (std::size_t begin = first_target - task.memory_tokens; begin < task.ids.size(); begin += window) {
    std::vector<const DocumentMemory*> seen;
    for (const DocumentMemory& document : recent) seen.push_back(&document);
    const auto ids = task.ids.subspan(begin, window);
    if (begin >= first_target) {
      Session session(exec, model, settings, lookup, seen);
      session.set_stop_flag(stop);
      const View<float, 2> all(logits.data(), {window, model.config.vocab_size});
      session.call(ids, window, all);
      for (std::size_t i = 0; i + 1 < window; ++i) {
        const double nll = token_nll(all[i].flat(), ids[i + 1]);
        result.nll += nll;
        if (each) each(begin + i, nll);
      }
      result.tokens += window - 1;
    }
    if (task.memory_tokens > 0) {
      Session session(exec, model, settings, lookup, seen);
      session.set_stop_flag(stop);
      session.read_window(ids);
      recent.push_back(std::move(session.own_memory()));
      if (recent.size() > task.memory_tokens / window) recent.pop_front();
    }
    progress(begin + window - (first_target - task.memory_tokens), task.targets + task.memory_tokens);
  }
  return result;
}

}  // namespace memlane
