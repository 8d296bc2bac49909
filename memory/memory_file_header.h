#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "memory/memory_file.h"

namespace memlane::format {

/// A header as the JSON that a memory file holds; keys in alphabetical order, so equal headers give equal bytes.
std::string header_to_json(const MemoryFileHeader& header);

/// The reverse. Throws InputError naming the file if it is no JSON, or a key is missing, unknown or of the wrong type.
/// What the values are is for check_header.
MemoryFileHeader header_from_json(std::string_view json, const std::filesystem::path& path);

}  // namespace memlane::format
