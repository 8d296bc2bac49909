#include "memory/eviction.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <numeric>

#include "kernels/error.h"

namespace memlane {

namespace {

constexpr std::string_view name_of(EvictionPolicy::Rule rule) {
  return rule == EvictionPolicy::Rule::oldest ? "oldest" : "least attended";
}

}  // namespace

std::string to_text(const EvictionPolicy& policy) {
  return fmt::format("{}, {} entries", name_of(policy.rule), policy.entries);
}

std::optional<EvictionPolicy> eviction_policy(std::string_view text) {
  for (const auto rule : {EvictionPolicy::Rule::oldest, EvictionPolicy::Rule::least_attended}) {
    EvictionPolicy policy{rule, 0};
    const std::size_t number = name_of(rule).size() + 2;
    if (!text.starts_with(name_of(rule)) || text.size() <= number) continue;
    const bool read =
        std::from_chars(text.data() + number, text.data() + text.size(), policy.entries).ec == std::errc();
    if (read && policy.entries > 0 && text == to_text(policy)) return policy;
  }
  return std::nullopt;
}

void AttendedWindows::resume(std::span<const SeenWindow> seen, std::span<const std::size_t> counts) {
  MEMLANE_EXPECTS(seen.size() == counts.size());
  seen_.assign(seen.begin(), seen.end());
  counts_.assign(counts.begin(), counts.end());
  entries_ = std::accumulate(counts.begin(), counts.end(), std::size_t{0});
}

void AttendedWindows::read(std::uint32_t first, std::span<const std::size_t> counts, std::span<const double> sums,
                           std::size_t tokens) {
  MEMLANE_EXPECTS(tokens > 0 && sums.size() >= entries_);
  add_shares(sums, tokens);
  for (const std::size_t count : counts) {
    seen_.push_back({first++, 0, 0});
    counts_.push_back(count);
    entries_ += count;
  }
  places_.resize(seen_.size());
  std::iota(places_.begin(), places_.end(), std::size_t{0});
  while (entries_ > most_ && evict_one()) {
  }
}

void AttendedWindows::add_shares(std::span<const double> sums, std::size_t tokens) {
  for (std::size_t i = 0; i < seen_.size(); ++i) {
    const std::span<const double> own = sums.first(counts_[i]);
    sums = sums.subspan(counts_[i]);
    const double sum = std::accumulate(own.begin(), own.end(), 0.0);
    // Softmax weights are rounded, so that their sum may be a little more than what there is; and where keys are not
    // finite it is no number, which a file would not be opened with again.
    const double share = sum > 0 ? std::min(sum / static_cast<double>(tokens), 1.0) : 0.0;
    SeenWindow& window = seen_[i];
    window.weight = window.times == 0 ? share : (window.weight + share) / 2;
    ++window.times;
  }
}

/// Returns false if there is none that may be.
bool AttendedWindows::evict_one() {
  const auto of_entry = [&](std::size_t i) { return seen_[i].weight / static_cast<double>(counts_[i]); };
  std::optional<std::size_t> least;
  for (std::size_t i = 0; i < seen_.size(); ++i) {
    if (seen_[i].times > 0 && (!least || of_entry(i) < of_entry(*least))) least = i;
  }
  if (!least) return false;
  const auto at = static_cast<std::ptrdiff_t>(*least);
  entries_ -= counts_[*least];
  seen_.erase(seen_.begin() + at);
  counts_.erase(counts_.begin() + at);
  places_.erase(places_.begin() + at);
  return true;
}

std::string fault_of(std::span<const SeenWindow> seen, std::span<const SeenWindow> before, std::size_t first,
                     std::span<const std::size_t> counts, std::size_t most) {
  std::size_t entries = 0, next = 0;  // next: the least that may follow
  for (const SeenWindow& window : seen) {
    if (window.index < next || window.index >= counts.size()) return "windows that are seen are out of order";
    next = window.index + std::size_t{1};
    entries += counts[window.index];
    if (!(window.weight >= 0 && window.weight <= 1)) return "a window's weight is not one from 0 to 1";
    if (window.index >= first) {
      if (window.times > 0 || window.weight > 0) return "a window has weight before it is seen";
      continue;
    }
    while (!before.empty() && before.front().index < window.index) before = before.subspan(1);
    if (before.empty() || before.front().index != window.index) return "a window is seen again";
    if (window.times != before.front().times + 1) return "a window was seen more or less often than there are others";
  }
  const auto is_new = [&](const SeenWindow& window) { return window.index >= first; };
  const auto newest = static_cast<std::size_t>(std::count_if(seen.begin(), seen.end(), is_new));
  if (newest != counts.size() - first) return "the newest window is not seen";
  if (entries > most) return "more entries are seen than are kept";
  return {};
}

}  // namespace memlane
