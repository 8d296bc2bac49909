// ingest, ask and info on a small model.

#include <sys/stat.h>

#include "tests/apps/command_test.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class IngestCommand : public CommandTest {};

TEST_F(IngestCommand, ReadsADocumentThatAskContinuesAndInfoDescribes) {
  const std::string document = write("tale.txt", story(300, 1));
  const std::size_t tokens = Tokenizer::open(stories()).encode(story(300, 1), true).size();
  ingest("m", {document});
  const nlohmann::json info = json_of({"info", path("m"), "--json"});
  EXPECT_EQ(info.at("mem_layers"), nlohmann::json({2, 3}));
  EXPECT_EQ(info.at("window"), 64);
  EXPECT_EQ(info.at("entries"), tokens);
  EXPECT_EQ(info.at("documents").at(0).at("name"), "tale.txt");
  EXPECT_EQ(info.at("documents").at(0).at("tokens_in_memory"), tokens);
  EXPECT_EQ(info.at("documents").at(0).at("windows"), (tokens + 63) / 64);
  EXPECT_TRUE(info.at("documents").at(0).at("complete"));
  EXPECT_THAT(run({"info", path("m")}).out, HasSubstr("name: tale.txt"));
  EXPECT_GT(ask("m", "Once upon").size(), 5U);
}

TEST_F(IngestCommand, ReadsAWholeNovelThatCanBeAsked) {
  if (kSanitized) GTEST_SKIP() << "a novel takes minutes under a sanitizer";
  const std::string novel = std::string(MEMLANE_SOURCE_DIR) + "/examples/hound-of-the-baskervilles.txt";
  ASSERT_EQ(run(ingest_words("m", {"--mem-layers", "3", novel})).exit_code, 0);
  const nlohmann::json info = json_of({"info", path("m"), "--json"});
  EXPECT_EQ(info.at("entries"), 175233);
  EXPECT_TRUE(info.at("documents").at(0).at("complete"));
  EXPECT_GT(ask("m", "Once upon a time").size(), 5U);
}

TEST_F(IngestCommand, RefusesWindowsThatLeaveSomethingBehind) {
  const std::string document = write("a.txt", story(100, 1));
  for (const Words& flags : {Words{"--overlap", "8"}, Words{"--sliding-window", "32", "--sinks", "2"}}) {
    expect_refused(ingest_words("m", Words{"--mem-layers", "2", "--window", "64"} + flags + Words{document}),
                   {flags.front(), "one by one"});
  }
}

TEST_F(IngestCommand, PlansBeforeItWorks) {
  const Words words = {"ingest",  "--model",      stories(), "--memory",
                       path("m"), "--mem-layers", "2",       write("a.txt", story(200, 1))};
  const Outcome outcome = run(words);
  EXPECT_EQ(outcome.exit_code, 0);
  const std::size_t plan = outcome.err.find("of memory (");
  const std::size_t progress = outcome.err.find("100%");
  ASSERT_NE(plan, std::string::npos) << outcome.err;
  ASSERT_NE(progress, std::string::npos) << outcome.err;
  EXPECT_LT(plan, progress);
  EXPECT_THAT(outcome.err, HasSubstr("of disk ("));
  EXPECT_THAT(outcome.err, HasSubstr("tokens in"));
}

TEST_F(IngestCommand, OnlyPlansIfToldSo) {
  const Words words = {"--plan", "--mem-layers", "2", "--json", write("a.txt", story(200, 1)), "-"};
  const auto before = contents_of(folder());
  const Outcome outcome = run(Invocation{.arguments = ingest_words("m", words), .input = story(100, 2)});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const nlohmann::json plan = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(plan.at("documents").size(), 2U);
  EXPECT_GT(plan.at("planned_disk_bytes"), 0);
  EXPECT_TRUE(contents_of(folder()) == before);
}

TEST_F(IngestCommand, PlansAtLeastWhatItWrites) {
  const Words words = {
      "--mem-layers", "2,3", "--window", "50", "--json", write("a.txt", story(300, 1)), write("b.txt", story(30, 2))};
  for (const char* index : {"dense", "Flat"}) {
    const nlohmann::json report = json_of(ingest_words(index, words + Words{"--index", index}));
    constexpr std::uint64_t kEmptyFile = 3 * 4096;  // of header and commit slots
    EXPECT_GE(report.at("planned_disk_bytes").get<std::uint64_t>() + kEmptyFile, report.at("file_bytes")) << index;
  }
}

TEST_F(IngestCommand, ReportsWhatItDidAsJson) {
  const nlohmann::json report =
      json_of(ingest_words("m", {"--mem-layers", "2", "--json", write("a.txt", story(100, 1))}));
  for (const char* key : {"memory", "documents", "window", "mem_layers", "planned_memory_bytes", "planned_disk_bytes",
                          "file_bytes", "tokens_read", "seconds", "tokens_per_second", "interrupted"}) {
    EXPECT_TRUE(report.contains(key)) << key;
  }
  EXPECT_EQ(report.at("file_bytes"), std::filesystem::file_size(path("m")));
  EXPECT_EQ(report.at("tokens_read"), report.at("documents").at(0).at("tokens"));
}

TEST_F(IngestCommand, ASecondRunSaysItIsThereAndChangesNoByte) {
  const Words words = {"ingest",  "--model",      stories(), "--memory",
                       path("m"), "--mem-layers", "2",       write("a.txt", story(100, 1))};
  ASSERT_EQ(run(words).exit_code, 0);
  const std::string before = read_text(path("m"));
  const Outcome again = run(words);
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_THAT(again.err, HasSubstr("in memory already"));
  EXPECT_EQ(read_text(path("m")), before);
}

TEST_F(IngestCommand, AddsDocumentsThatAskThenSees) {
  const std::string a = write("a.txt", story(100, 1));
  ingest("m", {a, write("b.txt", story(80, 2)), write("same-as-a.txt", story(100, 1))});
  EXPECT_EQ(json_of({"info", path("m"), "--json"}).at("documents").size(), 2U) << "the same text once";
  const nlohmann::json before = json_of(ask_words("m", "Once upon", {"--json"}));
  EXPECT_EQ(before.at("documents"), 2);
  ASSERT_EQ(run(ingest_words("m", {"--name", "third", write("c.txt", story(60, 3))})).exit_code, 0)
      << "settings are the file's";
  const nlohmann::json after = json_of(ask_words("m", "Once upon", {"--json"}));
  EXPECT_EQ(after.at("documents"), 3);
  EXPECT_GT(after.at("memory_entries"), before.at("memory_entries"));
  EXPECT_EQ(json_of({"info", path("m"), "--json"}).at("documents").at(2).at("name"), "third");
}

TEST_F(IngestCommand, ReadsEachDocumentAgainstItsOwnMemoryOnly) {
  const std::string a = write("a.txt", story(150, 1));
  const std::string b = write("b.txt", story(150, 2));
  ingest("both", {a, b});
  ingest("alone", {b});
  const MemoryFile both = MemoryFile::open(path("both"));
  const MemoryFile alone = MemoryFile::open(path("alone"));
  ASSERT_EQ(both.documents().size(), 2U);
  ASSERT_EQ(both.documents()[1].windows.size(), alone.documents()[0].windows.size());
  for (std::size_t i = 0; i < alone.documents()[0].windows.size(); ++i) {
    const StoredWindow& left = both.documents()[1].windows[i];
    const StoredWindow& right = alone.documents()[0].windows[i];
    EXPECT_TRUE(std::equal(left.entries, left.entries + both.header().shape.segment_bytes(left.count), right.entries));
  }
}

TEST_F(IngestCommand, AskNeverTouchesTheFile) {
  ingest("m", {write("a.txt", story(100, 1))}, {"--index", "Flat"});
  ASSERT_EQ(::chmod(path("m").c_str(), 0444), 0);
  struct ::stat before {};
  ::stat(path("m").c_str(), &before);
  const std::string bytes = read_text(path("m"));
  ask("m", "Once upon");
  ask("m", "Once upon", {"--index", "exact"});
  struct ::stat after {};
  ::stat(path("m").c_str(), &after);
  EXPECT_EQ(read_text(path("m")), bytes);
  EXPECT_EQ(before.st_mtim.tv_sec, after.st_mtim.tv_sec);
  EXPECT_EQ(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
  EXPECT_EQ(contents_of(folder()).size(), 2U) << "nor makes another";
}

TEST_F(IngestCommand, KeepsTheTypeItIsTold) {
  const std::string document = write("a.txt", story(100, 1));
  for (const char* dtype : {"float32", "float16", "bfloat16"}) {
    ingest(dtype, {document}, {"--mem-dtype", dtype});
    EXPECT_EQ(json_of({"info", path(dtype), "--json"}).at("mem_dtype"), dtype);
    EXPECT_GT(ask(dtype, "Once upon").size(), 5U);
  }
}

}  // namespace
}  // namespace memlane
