#include "apps/count_option.h"

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

}  // namespace memlane
