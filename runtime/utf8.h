#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace memlane {

/// U+FFFD, which stands for bytes that are no character.
inline constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";

/// What text begins with.
struct Utf8Prefix {
  enum class Kind {
    character,  // a whole character of `length` bytes
    cut,        // the beginning of a character whose rest is missing; all of the text
    invalid,    // a byte that begins no character (overlong forms and surrogates included)
  };
  Kind kind;
  std::size_t length;  // bytes
};

/// `text` is not empty.
Utf8Prefix utf8_prefix(std::string_view text);

/// Offset of the first byte that belongs to no character; nothing if the text is valid UTF-8.
std::optional<std::size_t> first_invalid_utf8(std::string_view text);

}  // namespace memlane
