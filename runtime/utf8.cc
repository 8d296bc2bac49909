#include "runtime/utf8.h"

#include <cstdint>
#include <cstring>

#include "kernels/error.h"

namespace memlane {

namespace {

struct Lead {
  std::size_t length;  // of the character; 0 if no character begins so
  unsigned char
      first;  // range of the second byte: it is what rules out overlong forms, surrogates and all above U+10FFFF
  unsigned char last;
};

Lead lead_of(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xc2) return {0, 0, 0};
  if (byte < 0xe0) return {2, 0x80, 0xbf};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0x80, 0x9f};
  if (byte < 0xf0) return {3, 0x80, 0xbf};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte < 0xf4) return {4, 0x80, 0xbf};
  if (byte == 0xf4) return {4, 0x80, 0x8f};
  return {0, 0, 0};
}

bool eight_ascii_bytes(const char* bytes) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof word);
  return (word & 0x8080808080808080U) == 0;
}

}  // namespace

Utf8Prefix utf8_prefix(std::string_view text) {
  MEMLANE_EXPECTS(!text.empty());
  const Lead lead = lead_of(static_cast<unsigned char>(text[0]));
  if (lead.length == 0) return {Utf8Prefix::Kind::invalid, 1};
  for (std::size_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {Utf8Prefix::Kind::cut, text.size()};
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool continues = i == 1 ? byte >= lead.first && byte <= lead.last : (byte & 0xc0) == 0x80;
    if (!continues) return {Utf8Prefix::Kind::invalid, 1};
  }
  return {Utf8Prefix::Kind::character, lead.length};
}

std::optional<std::size_t> first_invalid_utf8(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    if (text.size() - at >= 8 && eight_ascii_bytes(text.data() + at)) {
      at += 8;
      continue;
    }
    const Utf8Prefix prefix = utf8_prefix(text.substr(at));
    if (prefix.kind != Utf8Prefix::Kind::character) return at;
    at += prefix.length;
  }
  return std::nullopt;
}

}  // namespace memlane
