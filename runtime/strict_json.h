#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace memlane {

/// Parses text that came from outside and must be one JSON object. Throws InputError, naming `file`, if it is not valid
/// JSON, is no object, has a key twice in one object (readers differ in which one they take), nests deeper than any
/// real file does, or has more than a million keys and values. advice: what the user can do about it.
nlohmann::json parse_json_object(std::string_view text, const std::filesystem::path& file,
                                 std::string_view advice = "download the file again");

/// Reads a whole JSON file of at most 16 MiB through parse_json_object; `what` says what the file is for.
nlohmann::json read_json_object(const std::filesystem::path& file, std::string_view what,
                                std::string_view advice = "download the file again");

/// A JSON value for an error message: short, on one line, printable ASCII.
std::string describe(const nlohmann::json& value);

/// Text from outside, in quotes, for an error message: short, on one line, printable ASCII.
std::string shown(std::string_view text);

}  // namespace memlane
