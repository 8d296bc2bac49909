#include "runtime/utf8.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace memlane {
namespace {

std::string utf8(std::uint32_t code_point) {
  const auto byte = [](std::uint32_t bits) { return static_cast<char>(bits); };
  if (code_point < 0x80) return {byte(code_point)};
  if (code_point < 0x800) return {byte(0xc0 | code_point >> 6), byte(0x80 | (code_point & 0x3f))};
  if (code_point < 0x10000) {
    return {byte(0xe0 | code_point >> 12), byte(0x80 | (code_point >> 6 & 0x3f)), byte(0x80 | (code_point & 0x3f))};
  }
  return {byte(0xf0 | code_point >> 18), byte(0x80 | (code_point >> 12 & 0x3f)), byte(0x80 | (code_point >> 6 & 0x3f)),
          byte(0x80 | (code_point & 0x3f))};
}

TEST(Utf8, AcceptsEveryCodePointButSurrogates) {
  for (std::uint32_t code_point = 0; code_point <= 0x10ffff; ++code_point) {
    const bool surrogate = code_point >= 0xd800 && code_point <= 0xdfff;
    ASSERT_EQ(first_invalid_utf8(utf8(code_point)).has_value(), surrogate) << code_point;
  }
}

TEST(Utf8, RefusesOverlongFormsAndAllAboveTheLastCodePoint) {
  for (const char* text : {"\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xf0\x80\x80\x80",
                           "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\x80", "\xbf"}) {
    EXPECT_EQ(first_invalid_utf8(text), 0U) << text;
  }
}

TEST(Utf8, GivesTheOffsetOfTheFirstInvalidByteWhereverItIs) {
  for (std::size_t offset = 0; offset < 40; ++offset) {
    std::string text(50, 'a');
    text[offset] = '\xff';
    EXPECT_EQ(first_invalid_utf8(text), offset);
  }
  EXPECT_EQ(first_invalid_utf8("caf\xc3\xa9 \xe6\xbc"), 6U);  // a character cut off by the end
  EXPECT_EQ(first_invalid_utf8(""), std::nullopt);
  EXPECT_EQ(first_invalid_utf8(std::string_view("\0\0", 2)), std::nullopt);
}

TEST(Utf8, TellsACharacterThatIsCutFromOneThatIsInvalid) {
  const std::string character = utf8(0x1f600);
  for (std::size_t length = 1; length < character.size(); ++length) {
    const Utf8Prefix prefix = utf8_prefix(std::string_view(character).substr(0, length));
    EXPECT_EQ(prefix.kind, Utf8Prefix::Kind::cut);
    EXPECT_EQ(prefix.length, length);
  }
  EXPECT_EQ(utf8_prefix(character + "x").length, 4U);
  EXPECT_EQ(utf8_prefix("\xe6\xbcx").kind, Utf8Prefix::Kind::invalid);
}

}  // namespace
}  // namespace memlane
