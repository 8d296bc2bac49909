#include "memory/list_settings.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <string_view>

#include "kernels/error.h"

namespace memlane {

namespace {

[[noreturn]] void refuse(const Lookup& lookup, std::string_view expected) {
  input_error("index parameters '{}': expected {} for {}; use for example {}", lookup.parameters, expected,
              lookup.name(), lookup.kind == Lookup::Kind::ivf ? "probes=64,tail=on" : "rerank=4");
}

std::size_t whole_number(const Lookup& lookup, std::string_view key, std::string_view text, std::size_t most) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 1 || number > most) {
    refuse(lookup, fmt::format("{} from 1 to {}", key, most));
  }
  return number;
}

double number(const Lookup& lookup, std::string_view key, std::string_view text, double least, double most) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || !(number >= least && number <= most)) {
    refuse(lookup, fmt::format("{} from {} to {}", key, least, most));
  }
  return number;
}

}  // namespace

ListSettings ListSettings::of(const Lookup& lookup) {
  ListSettings settings;
  const bool ivf = lookup.kind == Lookup::Kind::ivf;
  if (!ivf) settings.lists = 1;
  if (!ivf) settings.probes = std::numeric_limits<std::size_t>::max();
  std::string_view rest = lookup.parameters;
  while (!rest.empty()) {
    const std::string_view each = rest.substr(0, rest.find(','));
    rest = each.size() == rest.size() ? std::string_view() : rest.substr(each.size() + 1);
    const std::string_view key = each.substr(0, each.find('='));
    const std::string_view value = key.size() == each.size() ? std::string_view() : each.substr(key.size() + 1);
    if (key == "rerank") {
      settings.rerank = number(lookup, key, value, 1, 1000);
    } else if (key == "chunk") {
      settings.chunk = whole_number(lookup, key, value, std::size_t{1} << 24);
    } else if (key == "lists" && ivf) {
      settings.lists = whole_number(lookup, key, value, std::size_t{1} << 16);
    } else if (key == "probes" && ivf) {
      settings.probes = whole_number(lookup, key, value, std::size_t{1} << 30);
    } else if (key == "tail" && (value == "on" || value == "off")) {
      settings.tail = value == "on";
    } else if (key == "mass") {
      settings.mass = number(lookup, key, value, 0, 1);
      if (settings.mass == 0) refuse(lookup, "mass above 0 and up to 1");
    } else {
      refuse(lookup, ivf ? "chunk, lists, probes, rerank, mass or tail=on|off" : "chunk, rerank, mass or tail=on|off");
    }
  }
  return settings;
}

std::size_t ListSettings::candidates(std::size_t top_k) const {
  return static_cast<std::size_t>(std::ceil(static_cast<double>(top_k) * rerank));
}

std::size_t ListSettings::probes_of(std::size_t all) const {
  constexpr std::size_t kLeast = 128, kShareOfFew = 6, kMany = 512, kShareOfMany = 32;
  return probes > 0 ? probes : std::max(kLeast, std::min(all / kShareOfFew, kMany + all / kShareOfMany));
}

}  // namespace memlane
