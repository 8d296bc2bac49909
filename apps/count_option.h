#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace memlane {

/// What a count on the command line may be.
struct CountRange {
  std::size_t least = 0;
  std::size_t most = std::size_t{1} << 30;  ///< low enough that products of two counts fit 64 bits
};

/// Throws InputError, naming the option, if the text is not a whole number in the range.
std::size_t parse_count(const std::string& option, std::string_view text, CountRange range);

/// Adds an option that takes a whole number. CLI11's own would turn -1 into the largest one.
/// Count: std::size_t, whose value is shown as the default, or std::optional<std::size_t>.
template <class Count>
void add_count(CLI::App& app, const std::string& option, Count& count, const std::string& description,
               CountRange range = {}) {
  const auto read = [&count, option, range](const std::string& text) { count = parse_count(option, text, range); };
  CLI::Option* added = app.add_option_function<std::string>(option, read, description)->type_name("COUNT");
  if constexpr (std::is_same_v<Count, std::size_t>) added->default_str(std::to_string(count));
}

/// Adds an option that takes whole numbers separated by commas; their values are shown as the default.
void add_counts(CLI::App& app, const std::string& option, std::vector<std::size_t>& counts,
                const std::string& description, CountRange range = {});

}  // namespace memlane
