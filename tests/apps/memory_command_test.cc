// memlane memory list, drop, merge and compact; --documents.

#include <signal.h>

#include "memory/memory_file_writer.h"
#include "tests/apps/command_test.h"

namespace memlane {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class MemoryCommand : public CommandTest {
 protected:
  void SetUp() override {
    for (const unsigned seed : {1U, 2U, 3U}) write(name(seed), story(60 + 20 * seed, seed));
  }
  static std::string name(unsigned seed) { return std::to_string(seed) + ".txt"; }
  void ingest_all(const std::string& memory) const { ingest(memory, {path("1.txt"), path("2.txt"), path("3.txt")}); }
  Words names_in(const std::string& memory) const {
    Words names;
    const nlohmann::json report = json_of({"memory", "list", path(memory), "--json"});
    for (const auto& document : report.at("documents")) names.push_back(document.at("name"));
    return names;
  }
  /// Equal ones mean equal records.
  std::uint64_t digest(const std::string& memory) const { return MemoryFile::open(path(memory)).commit().digest; }
  /// The logits of a question, which depend on every entry that it sees.
  std::vector<float> answer(const std::string& memory, const Words& flags = {}) const {
    const SafetensorsFile file =
        logits("logits", Words{"--model", stories(), "--memory", path(memory), "--text", "Once upon a time"} + flags);
    const auto bytes = file.tensor("logits").bytes;
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
};

TEST_F(MemoryCommand, ListsDocumentsAndDropsThem) {
  ingest_all("m");
  const nlohmann::json report = json_of({"memory", "list", path("m"), "--json"});
  ASSERT_EQ(report.at("documents").size(), 3U);
  EXPECT_EQ(report.at("documents").at(1).at("id"), 1);
  EXPECT_EQ(report.at("documents").at(1).at("text_bytes"), std::filesystem::file_size(path("2.txt")));
  EXPECT_EQ(report.at("bytes"), report.at("compacted_bytes"));
  const Outcome table = run({"memory", "list", path("m")});
  EXPECT_THAT(table.out, AllOf(HasSubstr("tokens"), HasSubstr("2.txt"), Not(HasSubstr("compact"))));

  EXPECT_THAT(run({"memory", "drop", path("m"), "2.txt", "0"}).out, AllOf(HasSubstr("2.txt"), HasSubstr("1.txt")));
  EXPECT_EQ(names_in("m"), Words{"3.txt"});
  EXPECT_THAT(run({"memory", "list", path("m")}).out, AllOf(HasSubstr("3.txt"), HasSubstr("memory compact")));
  EXPECT_EQ(json_of({"info", path("m"), "--json"}).at("dropped_documents"), 2);
  EXPECT_EQ(json_of(ask_words("m", "Once upon", {"--json"})).at("documents"), 1);
  expect_refused({"memory", "drop", path("m"), "2.txt"}, {"drop 2.txt", path("m"), "2 '3.txt'"});
}

TEST_F(MemoryCommand, AskingWithoutDroppedDocumentsIsAskingTheOthers) {
  ingest_all("m");
  ingest("only", {path("2.txt")});
  const std::vector<float> expected = answer("only");
  EXPECT_NE(answer("m"), expected);
  EXPECT_EQ(answer("m", {"--documents", "2.txt"}), expected);
  EXPECT_EQ(answer("m", {"--documents", "id:1"}), expected);
  ASSERT_EQ(run({"memory", "drop", path("m"), "1.txt", "3.txt"}).exit_code, 0);
  EXPECT_EQ(answer("m"), expected);
  ASSERT_EQ(run({"memory", "compact", path("m"), "--quiet"}).exit_code, 0);
  EXPECT_EQ(answer("m"), expected);
  EXPECT_EQ(digest("m"), digest("only")) << "and the file says the same";
}

TEST_F(MemoryCommand, AsksSomeDocuments) {
  ingest_all("m");
  const nlohmann::json two = json_of(ask_words("m", "Once upon", {"--documents", "3.txt,0", "--json"}));
  EXPECT_EQ(two.at("documents"), 2);
  EXPECT_LT(two.at("memory_entries"), json_of({"info", path("m"), "--json"}).at("entries"));
  ingest("pair", {path("1.txt"), path("3.txt")});
  EXPECT_EQ(two.at("ids"), json_of(ask_words("pair", "Once upon", {"--json"})).at("ids"));
  expect_refused(ask_words("m", "Once", {"--documents", "4.txt"}),
                 {"--documents 4.txt", "0 '1.txt', 1 '2.txt', 2 '3.txt'"});
  expect_refused(Words{"logits", "--model", stories(), "--text", "a", "--output", path("out"), "--documents", "1.txt"},
                 {"--documents", "--memory"});
}

TEST_F(MemoryCommand, IngestsADroppedDocumentAgain) {
  ingest_all("m");
  ASSERT_EQ(run({"memory", "drop", path("m"), "2.txt"}).exit_code, 0);
  ASSERT_EQ(run(ingest_words("m", {path("2.txt"), path("1.txt")})).exit_code, 0);
  EXPECT_EQ(names_in("m"), (Words{"1.txt", "3.txt", "2.txt"}));
  EXPECT_EQ(answer("m", {"--documents", "2.txt"}).size(), answer("m").size());
}

TEST_F(MemoryCommand, ANameStandsForOneText) {
  ingest_all("m");
  std::filesystem::create_directory(path("other"));
  const std::string other = write("other/1.txt", story(50, 9));
  expect_refused(ingest_words("m", {other}), {path("m"), "'1.txt'", "document 0", "--name", "memory drop"});
  expect_refused(ingest_words("new", {"--mem-layers", "2", other, path("1.txt")}), {"1.txt", "--name"});
  const Outcome same = run({"ingest", "--model", stories(), "--memory", path("m"), "--name", "copy", path("1.txt")});
  EXPECT_EQ(same.exit_code, 0);
  EXPECT_THAT(same.err, HasSubstr("in memory already as 1.txt"));
  EXPECT_EQ(run(ingest_words("m", {"--name", "1 again", other})).exit_code, 0);
  EXPECT_EQ(names_in("m"), (Words{"1.txt", "2.txt", "3.txt", "1 again"}));
}

TEST_F(MemoryCommand, CompactSaysWhatItGainsAndDoesNothingForNothing) {
  ingest_all("m");
  const std::string whole = read_text(path("m"));
  EXPECT_FALSE(json_of({"memory", "compact", path("m"), "--quiet", "--json"}).at("compacted"));
  EXPECT_EQ(read_text(path("m")), whole);
  ASSERT_EQ(run({"memory", "drop", path("m"), "2.txt"}).exit_code, 0);
  const std::string dropped = read_text(path("m"));
  const Outcome plan = run({"memory", "compact", path("m"), "--plan"});
  EXPECT_THAT(plan.err, AllOf(HasSubstr("now"), HasSubstr("of disk meanwhile")));
  EXPECT_EQ(read_text(path("m")), dropped);
  const nlohmann::json report = json_of({"memory", "compact", path("m"), "--quiet", "--json"});
  EXPECT_EQ(report.at("bytes_before"), dropped.size());
  EXPECT_EQ(report.at("bytes_after"), std::filesystem::file_size(path("m")));
  EXPECT_LT(report.at("bytes_after"), report.at("bytes_before"));
  const Outcome full = run(Invocation{.arguments = {"memory", "compact", path("m")}, .limits = {{RLIMIT_FSIZE, 9000}}});
  EXPECT_EQ(full.exit_code, 0) << "nothing to do needs no room";
}

TEST_F(MemoryCommand, AFullDiskStopsCompactAndMergeAndChangesNothing) {
  if (kThreadSanitized) GTEST_SKIP() << "ThreadSanitizer's runtime writes a file before main";
  ingest_all("m");
  ASSERT_EQ(run({"memory", "drop", path("m"), "1.txt"}).exit_code, 0);
  for (const Words& words : {Words{"memory", "compact", path("m"), "--quiet"},
                             Words{"memory", "merge", path("new"), path("m"), "--quiet"}}) {
    expect_refused(Invocation{.arguments = words, .limits = {{RLIMIT_FSIZE, 20000}}}, {"cannot write", path("")});
  }
}

TEST_F(MemoryCommand, MergesWithoutReadingAgain) {
  ingest("a", {path("1.txt"), path("2.txt")});
  ingest("b", {path("2.txt"), path("3.txt")});
  ingest_all("all");
  EXPECT_EQ(run({"memory", "merge", path("m"), path("a"), path("b"), "--plan"}).exit_code, 0);
  EXPECT_FALSE(std::filesystem::exists(path("m")));
  const nlohmann::json report = json_of({"memory", "merge", path("m"), path("a"), path("b"), "--quiet", "--json"});
  ASSERT_EQ(report.at("documents").size(), 4U);
  EXPECT_TRUE(report.at("documents").at(2).at("there_already")) << "the same text once";
  EXPECT_EQ(names_in("m"), (Words{"1.txt", "2.txt", "3.txt"}));
  EXPECT_EQ(digest("m"), digest("all")) << "as if everything had been read into it";
  EXPECT_EQ(answer("m"), answer("all"));

  const std::string merged = read_text(path("m"));
  EXPECT_EQ(run({"memory", "merge", path("m"), path("b")}).exit_code, 0);
  EXPECT_EQ(read_text(path("m")), merged) << "nothing was missing";
  ASSERT_EQ(run({"memory", "merge", path("a"), path("b"), "--quiet"}).exit_code, 0);
  EXPECT_EQ(digest("a"), digest("all")) << "into a file that is there";
}

TEST_F(MemoryCommand, MergesOnlyWhatMeansTheSame) {
  ingest("a", {path("1.txt")});
  const auto ingest_with = [&](const std::string& memory, const Words& flags) {
    ASSERT_EQ(run(ingest_words(memory, flags + Words{path("2.txt")})).exit_code, 0);
  };
  ingest_with("other-window", {"--mem-layers", "2,3", "--window", "32"});
  ingest_with("other-type", {"--mem-layers", "2,3", "--window", "64", "--mem-dtype", "float32"});
  ingest_with("other-layers", {"--mem-layers", "1,3", "--window", "64"});
  expect_refused({"memory", "merge", path("a"), path("other-window")}, {path("other-window"), path("a"), "window 32"});
  expect_refused({"memory", "merge", path("a"), path("other-type")}, {"float32 in the file, bfloat16"});
  expect_refused({"memory", "merge", path("new"), path("a"), path("other-layers")}, {"memory layers 1,3", path("a")});
  expect_refused({"memory", "merge", path("a"), path("a")}, {path("a"), "leave it out"});
  expect_refused({"memory", "merge", path("new"), path("none")}, {path("none"), "No such file"});
  expect_refused({"memory", "merge", path("1.txt"), path("a")}, {path("1.txt"), "not a memory file"});
}

TEST_F(MemoryCommand, MergesNoNameTwiceUnlessToldTo) {
  std::filesystem::create_directory(path("other"));
  const std::string other = write("other/1.txt", story(50, 9));
  ingest("a", {path("1.txt")});
  ingest("b", {other});
  expect_refused({"memory", "merge", path("a"), path("b")}, {path("b"), "'1.txt'", "--same-names"});
  ASSERT_EQ(run({"memory", "merge", path("a"), path("b"), "--same-names", "--quiet"}).exit_code, 0);
  EXPECT_EQ(names_in("a"), (Words{"1.txt", "1.txt"}));
  expect_refused(ask_words("a", "Once", {"--documents", "1.txt"}), {"--documents 1.txt", "0, 1", "id:0"});
  EXPECT_EQ(answer("a", {"--documents", "1"}), answer("b"));
}

TEST_F(MemoryCommand, MergesNoHalfDocuments) {
  ingest("a", {path("1.txt")});
  {
    MemoryFileWriter writer = MemoryFileWriter::create(path("half"), MemoryFile::open(path("a")).header());
    writer.begin_document({0, "half.txt", "aa", 100, 50});
  }
  expect_refused({"memory", "merge", path("a"), path("half")}, {path("half"), "only 0 of 50 tokens of 'half.txt'"});
  EXPECT_THAT(run({"memory", "list", path("half")}).out, HasSubstr("0 %"));
  expect_refused(ask_words("half", "Once"), {path("half"), "holds no document yet"});
  expect_refused(ask_words("half", "Once", {"--documents", "half.txt"}), {path("half"), "nothing of these documents"});
}

TEST_F(MemoryCommand, NamesWhatIsMissing) {
  expect_refused({"memory"}, {"subcommand"});
  expect_refused({"memory", "list", path("none")}, {path("none"), "No such file"});
  expect_refused({"memory", "compact", path("none")}, {path("none"), "No such file"});
  expect_refused({"memory", "drop", path("none"), "a"}, {path("none"), "No such file"});
  expect_refused({"memory", "drop", path("1.txt"), "a"}, {path("1.txt"), "not a memory file"});
  expect_refused({"memory", "drop", path("1.txt")}, {"documents"});
}

}  // namespace
}  // namespace memlane
