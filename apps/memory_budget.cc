#include "apps/memory_budget.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "apps/value_option.h"
#include "kernels/error.h"
#include "runtime/resources.h"

namespace memlane {

std::string name_of(Beyond beyond) {
  switch (beyond) {
    case Beyond::spill:
      return "spill";
    case Beyond::evict_oldest:
      return "evict-oldest";
    case Beyond::evict_least_attended:
      return "evict-least-attended";
    case Beyond::refuse:
      break;
  }
  return "refuse";
}

std::optional<EvictionPolicy::Rule> evicted_by(Beyond beyond) {
  if (beyond == Beyond::evict_oldest) return EvictionPolicy::Rule::oldest;
  if (beyond == Beyond::evict_least_attended) return EvictionPolicy::Rule::least_attended;
  return std::nullopt;
}

Beyond beyond_of(EvictionPolicy::Rule rule) {
  return rule == EvictionPolicy::Rule::oldest ? Beyond::evict_oldest : Beyond::evict_least_attended;
}

std::string eviction_setting(const MemoryFileHeader& header) {
  const auto found = header.settings.find(kEviction);
  return found == header.settings.end() ? "none" : found->second;
}

std::uint64_t parse_bytes(const std::string& option, std::string_view text) {
  constexpr std::string_view kSuffixes = "KMG";
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  std::size_t shift = 0;
  bool well_formed = error == std::errc() && number > 0;
  if (well_formed && stop != end) {
    const std::size_t suffix = kSuffixes.find(*stop);
    well_formed = stop + 1 == end && suffix != std::string_view::npos;
    shift = 10 * (suffix + 1);
  }
  if (!well_formed || number > std::numeric_limits<std::uint64_t>::max() >> shift) {
    input_error(
        "{}: expected a number of bytes from 1 to 2^64, which may end in K, M or G (powers of 1024), found '{}'",
        option, text);
  }
  return number << shift;
}

void MemoryBudget::add_to(CLI::App& app, bool evicts) {
  const auto read = [this](const std::string& text) { most = parse_bytes("--max-memory-bytes", text); };
  app.add_option_function<std::string>("--max-memory-bytes", read,
                                       "Memory that this process may take, such as 8G (default: no limit but what is "
                                       "free)")
      ->type_name("SIZE");
  std::map<std::string, Beyond> choices = {{name_of(Beyond::refuse), Beyond::refuse},
                                           {name_of(Beyond::spill), Beyond::spill}};
  std::string description =
      "With --max-memory-bytes, what to do if more is needed: refuse, or spill (entries stay in the memory file and "
      "are "
      "read again; slower, the same results";
  if (evicts) {
    for (const Beyond evicting : {Beyond::evict_oldest, Beyond::evict_least_attended}) {
      choices.emplace(name_of(evicting), evicting);
    }
    description +=
        "), or evict-oldest or evict-least-attended (each window sees only as many windows before it as fit: the "
        "newest, or those that got the most attention; other results";
  }
  add_choice(app, "--beyond", beyond, choices, description + ") (default: refuse)");
}

void MemoryBudget::check() const {
  if (!beyond || most) return;
  input_error("--beyond {}: expected --max-memory-bytes as well, found no budget to go beyond", name_of(*beyond));
}

std::uint64_t MemoryBudget::room(const MemoryNeed& need) const {
  const std::uint64_t taken = need.fixed + ResidentLimit::margin(*most);
  return *most > taken ? *most - taken : 0;
}

void MemoryBudget::require(const MemoryNeed& need, std::string_view what) const {
  if (!most) return;
  const bool spills = choice() == Beyond::spill;
  const std::uint64_t fixed = std::max(need.peak, need.fixed + (spills ? ahead(need) : 0));
  if (fixed > *most) {
    input_error(
        "--max-memory-bytes: {} needs {} beside its entries, {} are allowed; allow more, or use a smaller --window or "
        "--weights int8 or int4",
        what, bytes_text(fixed), bytes_text(*most));
  }
  if (spills || need.bytes() <= *most) return;
  if (evicted_by(choice())) {
    input_error(
        "--max-memory-bytes: {} needs {} to keep as many windows as the memory file says, {} are allowed; allow more",
        what, bytes_text(need.bytes()), bytes_text(*most));
  }
  input_error(
      "--max-memory-bytes: {} needs {}, {} are allowed; allow more, or choose what happens beyond with --beyond", what,
      bytes_text(need.bytes()), bytes_text(*most));
}

std::uint64_t MemoryBudget::planned(const MemoryNeed& need) const {
  if (!most || choice() != Beyond::spill) return need.bytes();
  // The limit, and a piece that is looked at before it is found to be passed.
  return std::min(*most - std::min(*most, ahead(need)) + pieces().bytes, need.bytes());
}

Memory::Pieces MemoryBudget::pieces() const {
  if (!limit_ || choice() != Beyond::spill) return {};
  return {ResidentLimit::margin(*most) / 4, [this] { limit_->look(); }};
}

/// What a budget under which entries are spilled is to be ahead of the limit.
std::uint64_t MemoryBudget::ahead(const MemoryNeed& need) const {
  return ResidentLimit::margin(*most) + std::min(need.at_once, need.entries);
}

void MemoryBudget::keep(const MemoryNeed& need) {
  if (most) limit_.emplace(*most - std::min(*most, ahead(need)));
}

}  // namespace memlane
