#include "apps/count_option.h"

#include <fmt/ranges.h>

#include <charconv>

#include "kernels/error.h"

namespace memlane {

std::size_t parse_count(const std::string& option, std::string_view text, CountRange range) {
  std::size_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  if (!whole || count < range.least || count > range.most) {
    input_error("{}: expected a whole number from {} to {}, found '{}'", option, range.least, range.most, text);
  }
  return count;
}

void add_counts(CLI::App& app, const std::string& option, std::vector<std::size_t>& counts,
                const std::string& description, CountRange range) {
  const auto read = [&counts, option, range](const std::vector<std::string>& texts) {
    counts.clear();
    for (const std::string& text : texts) counts.push_back(parse_count(option, text, range));
  };
  CLI::Option* added = app.add_option_function<std::vector<std::string>>(option, read, description);
  added->delimiter(',')->type_name("COUNT,...");
  if (!counts.empty()) added->default_str(fmt::format("{}", fmt::join(counts, ",")));
}

}  // namespace memlane
