#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace memlane {

/// Throws InputError that names the option, the choices and what was found instead of one.
[[noreturn]] void refuse_choice(const std::string& option, const std::vector<std::string>& choices,
                                std::string_view found);

/// Throws InputError, naming the option, if the text is not a finite number.
double parse_number(const std::string& option, std::string_view text);

namespace detail {
template <class Value>
struct ValueOf {
  using type = Value;
};
template <class Value>
struct ValueOf<std::optional<Value>> {
  using type = Value;
};
std::string number_text(double number);
}  // namespace detail

/// Adds an option that takes one of a few names. CLI11's own would take the number of an enumerator as well, and says
/// less about what it expected. Value: that of the choices, shown as the default, or an optional of it.
template <class Value>
void add_choice(CLI::App& app, const std::string& option, Value& value,
                const std::map<std::string, typename detail::ValueOf<Value>::type>& choices,
                const std::string& description) {
  const auto read = [&value, option, choices](const std::string& text) {
    const auto found = choices.find(text);
    if (found != choices.end()) {
      value = found->second;
      return;
    }
    std::vector<std::string> names;
    for (const auto& [name, each] : choices) names.push_back(name);
    refuse_choice(option, names, text);
  };
  CLI::Option* added = app.add_option_function<std::string>(option, read, description)->type_name("NAME");
  if constexpr (std::is_same_v<Value, typename detail::ValueOf<Value>::type>) {
    for (const auto& [name, each] : choices) {
      if (each == value) added->default_str(name);
    }
  }
}

/// Adds an option that takes a number. Number: a floating-point type, shown as the default, or an optional of one.
template <class Number>
void add_number(CLI::App& app, const std::string& option, Number& number, const std::string& description) {
  using Plain = typename detail::ValueOf<Number>::type;
  const auto read = [&number, option](const std::string& text) {
    number = static_cast<Plain>(parse_number(option, text));
  };
  CLI::Option* added = app.add_option_function<std::string>(option, read, description)->type_name("NUMBER");
  if constexpr (std::is_same_v<Number, Plain>) added->default_str(detail::number_text(static_cast<double>(number)));
}

/// Adds an option that takes numbers separated by commas.
void add_numbers(CLI::App& app, const std::string& option, std::vector<double>& numbers,
                 const std::string& description);

}  // namespace memlane
