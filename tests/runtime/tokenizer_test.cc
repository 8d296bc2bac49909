#include "runtime/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "runtime/utf8.h"
#include "tests/runtime/test_files.h"
#include "tests/temporary_folder.h"

namespace memlane {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::size_t kWhole = static_cast<std::size_t>(-1);

const Tokenizer& stories() {
  static const Tokenizer tokenizer = Tokenizer::open(source_dir() / "models/stories260K");
  return tokenizer;
}

const Tokenizer& open_llama() {
  static const Tokenizer tokenizer = Tokenizer::open(source_dir() / "tests/golden/longllama-tokenizer");
  return tokenizer;
}

/// Text of all kinds, from a seed.
std::string random_text(std::mt19937& random, const std::vector<std::string>& parts) {
  std::string text;
  for (std::size_t count = random() % 60; count > 0; --count) text += parts[random() % parts.size()];
  return text;
}

const std::vector<std::string>& hard_parts() {
  static const std::vector<std::string> parts = {" ",      "  ",     "\n",   "\n\n",
                                                 "\r\n",   "\t",     "the",  "a",
                                                 "x1",     ".",      "é",    "漢",
                                                 "字",     "Привет", "😀",    "👩‍👩‍👧",
                                                 "\u00a0", "\u2028", "▁",    std::string(1, '\0'),
                                                 "\x01",   "\x7f",   "</s>", "<s>",
                                                 "<unk>",  "<0x0A>"};
  return parts;
}

/// Without U+2581, and with single spaces only between other characters.
std::string kept_text(std::mt19937& random) {
  std::string text =
      random_text(random, {"\n", "\t", "the", "a", "x1", ".", "é", "漢", "Привет", "😀", "👩‍👩‍👧", "\u00a0",
                           std::string(1, '\0'), "\x01", "</s>", "<s>", "<0x0A>", "a b", "x\n y"});
  return text;
}

TEST(Tokenizer, GivesTheRecordedTextOfStories260K) {
  const auto recorded = nlohmann::json::parse(read_text(source_dir() / "tests/golden/stories260K/greedy_200.json"));
  const std::vector<int> ids = recorded.at("greedy_ids");
  const std::string text = recorded.at("text");
  EXPECT_EQ(stories().decode(ids), text);
  EXPECT_EQ(stories().encode(text, /*add_bos=*/false), ids);
}

TEST(Tokenizer, PutsBosBeforeTheTextOnRequest) {
  EXPECT_EQ(stories().bos_id(), 1);
  EXPECT_EQ(stories().eos_id(), 2);
  EXPECT_EQ(stories().size(), 512U);
  EXPECT_EQ(open_llama().size(), 32000U);
  EXPECT_THAT(stories().encode("", true), ElementsAre(1));
  EXPECT_THAT(stories().encode("", false), IsEmpty());
  std::vector<int> ids = stories().encode("Once upon a time", false);
  ids.insert(ids.begin(), 1);
  EXPECT_EQ(stories().encode("Once upon a time", true), ids);
}

TEST(Tokenizer, ReadsTheNamesOfControlTokensAsText) {
  for (const Tokenizer* tokenizer : {&stories(), &open_llama()}) {
    const std::vector<int> ids = tokenizer->encode("<s>a</s><unk>", false);
    for (const int id : ids) EXPECT_GT(id, 2);
    EXPECT_EQ(tokenizer->decode(ids), "<s>a</s><unk>");
  }
}

TEST(Tokenizer, GivesTheSameIdsInChunksAsInOnePiece) {
  std::mt19937 random(3);
  for (int i = 0; i < 1500; ++i) {
    const std::string text = random_text(random, hard_parts());
    for (const Tokenizer* tokenizer : {&stories(), &open_llama()}) {
      const std::vector<int> whole = tokenizer->encode(text, true, kWhole);
      for (const std::size_t chunk : {1UL, 7UL, 50UL}) ASSERT_EQ(tokenizer->encode(text, true, chunk), whole) << text;
    }
  }
}

TEST(Tokenizer, GivesTheSameIdsInChunksOfALongText) {
  const auto recorded = nlohmann::json::parse(read_text(source_dir() / "tests/golden/stories260K/greedy_200.json"));
  const std::string story = recorded.at("text");
  std::string book;
  while (book.size() < 4 * Tokenizer::kChunkBytes) book += story + "  \n\n" + story + "\tÉ漢 ";
  for (const Tokenizer* tokenizer : {&stories(), &open_llama()}) {
    const std::vector<int> whole = tokenizer->encode(book, true, kWhole);
    EXPECT_EQ(tokenizer->encode(book, true), whole);
    EXPECT_EQ(tokenizer->encode(book, true, 1), whole);
  }
}

TEST(Tokenizer, KeepsOneChunkWhereNoCutIsSafe) {
  for (const std::string& text : {std::string(5000, 'a'), std::string(5000, ' ') + "x", std::string(3000, ' ')}) {
    EXPECT_EQ(open_llama().encode(text, false, 10), open_llama().encode(text, false, kWhole));
  }
}

TEST(Tokenizer, GivesBackEveryTextItCanKeep) {
  std::mt19937 random(5);
  for (int i = 0; i < 1500; ++i) {
    const std::string text = kept_text(random);
    for (const Tokenizer* tokenizer : {&stories(), &open_llama()}) {
      ASSERT_EQ(tokenizer->decode(tokenizer->encode(text, i % 2 == 0)), text);
    }
  }
}

TEST(Tokenizer, GivesBackEveryCodePoint) {
  for (std::uint32_t code_point = 0x80; code_point < 0x800; ++code_point) {
    const std::string text = {static_cast<char>(0xc0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3f))};
    ASSERT_EQ(open_llama().decode(open_llama().encode(text, false)), text);
  }
}

TEST(Tokenizer, DropsTheSpacesThatItsModelSaysToDrop) {
  EXPECT_EQ(open_llama().decode(open_llama().encode("  a   b \n c  ", false)), "a b \n c");
  EXPECT_EQ(open_llama().decode(open_llama().encode("a▁b", false)), "a b");  // U+2581 is the space
}

TEST(Tokenizer, SkipsControlTokensAndRefusesIdsOutOfRange) {
  const std::vector<int> ids = stories().encode("a story", true);
  EXPECT_EQ(stories().decode(ids), "a story");
  for (const int id : {-1, 512, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
    EXPECT_THAT(input_error_of([&] { stories().decode(std::vector{id}); }),
                HasSubstr("expected token ids from 0 to 511"));
  }
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8AndNamesTheByte) {
  EXPECT_THAT(input_error_of([] { stories().encode("abc\xff", false); }), HasSubstr("offset 3"));
}

TEST(Tokenizer, HasAFingerprintOfItsFile) {
  EXPECT_EQ(stories().fingerprint().size(), 32U);
  EXPECT_NE(stories().fingerprint(), open_llama().fingerprint());
  EXPECT_EQ(stories().fingerprint(), Tokenizer::open(source_dir() / "models/stories260K").fingerprint());
}

TEST(Tokenizer, RefusesAFolderWithoutTokenizerModel) {
  const TemporaryFolder folder;
  const auto error = [&] { return input_error_of([&] { Tokenizer::open(folder.path()); }); };
  EXPECT_THAT(error(), HasSubstr("expected tokenizer.model"));
  write_text(folder.path() / "tokenizer.json", "{}");
  EXPECT_THAT(error(), HasSubstr("only tokenizer.json, which is not supported yet"));
  write_text(folder.path() / "tokenizer.model", "");
  EXPECT_THAT(error(), HasSubstr("expected a SentencePiece model"));
  write_text(folder.path() / "tokenizer.model", "version https://git-lfs.github.com/spec/v1\n");
  EXPECT_THAT(error(), HasSubstr("expected a SentencePiece model"));
}

TEST(Tokenizer, SurvivesAnyDamagedByteAndAnyTruncationInSilence) {
  const TemporaryFolder folder;
  const std::string model = read_text(source_dir() / "models/stories260K/tokenizer.model");
  std::mt19937 random(7);
  testing::internal::CaptureStderr();
  for (int i = 0; i < 600; ++i) {
    std::string damaged = model;
    // Settings stand in the last 300 bytes, so they get half of the damage.
    const std::size_t begin = i % 2 == 0 ? 0 : model.size() - 300;
    if (i % 5 == 0) {
      damaged.resize(random() % model.size());
    } else {
      damaged[begin + random() % (model.size() - begin)] ^= static_cast<char>(1U << random() % 8);
    }
    write_text(folder.path() / "tokenizer.model", damaged);
    input_error_of([&] {
      const Tokenizer tokenizer = Tokenizer::open(folder.path());
      tokenizer.decode(tokenizer.encode("Once upon a time,\n é漢😀  </s>", false, 4));
    });
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(TextStream, NeverGivesOutPartOfACharacter) {
  std::mt19937 random(11);
  for (int i = 0; i < 500; ++i) {
    const std::string text = kept_text(random);
    TextStream stream(stories(), /*at_start_of_text=*/true);
    std::string streamed;
    for (const int id : stories().encode(text, true)) {
      const std::string part = stream.push(id);
      ASSERT_FALSE(first_invalid_utf8(part).has_value());
      streamed += part;
    }
    EXPECT_EQ(stream.finish(), "");
    ASSERT_EQ(streamed, text);
  }
}

TEST(TextStream, ReplacesACharacterThatIsNeverCompleted) {
  const std::vector<int> ids = stories().encode("😀", false);  // a space and four bytes
  ASSERT_EQ(ids.size(), 5U);
  TextStream stream(stories(), true);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(stream.push(ids[i]), "");
  EXPECT_EQ(stream.finish(), "\ufffd\ufffd\ufffd");
  EXPECT_EQ(stream.finish(), "");

  EXPECT_EQ(stream.push(ids[1]), "");
  EXPECT_EQ(stream.push(stories().encode("a", false).front()), "\ufffd a");  // no character goes on after other text
}

TEST(TextStream, KeepsTheLeadingSpaceInTheMiddleOfAText) {
  const int id = stories().encode("the", false).front();
  EXPECT_EQ(TextStream(stories(), /*at_start_of_text=*/true).push(id), "the");
  EXPECT_EQ(TextStream(stories(), /*at_start_of_text=*/false).push(id), " the");
}

}  // namespace
}  // namespace memlane
