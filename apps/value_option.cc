#include "apps/value_option.h"

#include <fmt/ranges.h>

#include <charconv>
#include <cmath>

#include "kernels/error.h"

namespace memlane {

void refuse_choice(const std::string& option, const std::vector<std::string>& choices, std::string_view found) {
  const std::vector<std::string> others(choices.begin(), choices.end() - 1);
  input_error("{}: expected {} or {}, found '{}'", option, fmt::join(others, ", "), choices.back(), found);
}

double parse_number(const std::string& option, std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(number)) {
    input_error("{}: expected a number, found '{}'", option, text);
  }
  return number;
}

std::string detail::number_text(double number) {
  return fmt::format("{:g}", number);
}

void add_numbers(CLI::App& app, const std::string& option, std::vector<double>& numbers,
                 const std::string& description) {
  const auto read = [&numbers, option](const std::vector<std::string>& texts) {
    numbers.clear();
    for (const std::string& text : texts) numbers.push_back(parse_number(option, text));
  };
  app.add_option_function<std::vector<std::string>>(option, read, description)->delimiter(',')->type_name("NUMBER,...");
}

}  // namespace memlane
