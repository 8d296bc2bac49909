#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace memlane {

/// Writes to standard output and flushes. Throws InputError if that fails: a full disk must not look like success.
void print_text(std::string_view text);

/// A name or message as one line: control characters, which would break it or drive the terminal, become spaces.
std::string one_line(std::string text);

/// Prints "memlane: MESSAGE" to standard error, in one line whatever names in the message hold.
void print_problem(std::string message);

/// One JSON object, indented, and the end of its line. Bytes that are not UTF-8 (a file's name may have them) become
/// U+FFFD.
void print_json(const nlohmann::json& object);
/// The same in one line, for commands that print many.
void print_json_line(const nlohmann::json& object);

}  // namespace memlane
