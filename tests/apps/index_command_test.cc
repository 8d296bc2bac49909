// `memlane bench index` and `memlane memory index`.

#include "tests/apps/memory_state.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;

class BenchIndexCommand : public CommandTest {
 protected:
  Words bench(const Words& rest) const {
    const Words settings = {"--threads", "1", "--mem-layers", "2,3", "--window", "64", "--quiet", "--text", text_};
    return Words{"bench", "index", "--model", stories()} + settings + rest;
  }
  Words small(const Words& rest) const {
    return bench(Words{"--memory", "512", "--targets", "64", "--stride", "16", "--json"} + rest);
  }
  std::string text_ = write("text.txt", story(500, 1));
};

TEST_F(BenchIndexCommand, MeasuresEveryLookupBesideDense) {
  const nlohmann::json report =
      json_of(small({"--lookups", "exact:k=512", "int8:k=64", "ivf:chunk=256,lists=8,probes=2,k=16"}));
  EXPECT_EQ(report.at("bench"), "index");
  EXPECT_EQ(report.at("complete"), true);
  EXPECT_EQ(report.at("memory_tokens"), 512);
  const nlohmann::json& cells = report.at("cells");
  ASSERT_EQ(cells.size(), 4U);
  EXPECT_EQ(cells[0].at("lookup"), "dense");
  EXPECT_EQ(cells[0].at("perplexity_change"), 0);
  for (const auto& cell : cells) {
    EXPECT_EQ(cell.at("tokens"), 63) << "the first of the window is given";
    EXPECT_GT(cell.at("perplexity"), 1);
    EXPECT_GE(cell.at("mass"), 0);
    EXPECT_LE(cell.at("mass"), 1.0001);
    EXPECT_LE(cell.at("recall"), 1);
  }
  EXPECT_NEAR(cells[1].at("mass"), 1, 1e-5) << "all of 512 keys";
  EXPECT_NEAR(cells[1].at("perplexity_change"), 0, 1e-3);
  EXPECT_EQ(cells[1].at("top_k"), 512);
  EXPECT_EQ(cells[2].at("top_k"), 64);
  EXPECT_GT(cells[2].at("bytes"), 0);
  EXPECT_LT(cells[3].at("scanned"), 0.7) << "2 lists of 8";
  EXPECT_LT(cells[3].at("mass"), cells[1].at("mass"));
}

TEST_F(BenchIndexCommand, AsksForPassKeysAndDrawsAPlot) {
  const nlohmann::json report =
      json_of(small({"--lookups", "exact", "--trials", "2", "--trial-length", "200", "--plot", path("plot.svg")}));
  EXPECT_EQ(report.at("cells").at(1).at("trials"), 2);
  EXPECT_LE(report.at("cells").at(1).at("correct"), 2);
  EXPECT_THAT(read_text(path("plot.svg")), HasSubstr("<svg"));
  const Outcome table = run(bench({"--memory", "256", "--targets", "64", "--lookups", "exact"}));
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("256 tokens in memory, then 64"));
}

TEST_F(BenchIndexCommand, RefusesWhatCannotBe) {
  expect_refused(small({"--index", "ivf"}), {"--index", "--lookups"});
  expect_refused(small({"--lookups", "garbage"}), {"garbage"});
  expect_refused(small({"--lookups", "auto"}), {"lookup 'auto'", "by name"});
  expect_refused(small({"--lookups", "exact:k=0"}), {"exact:k=0", "k from 1"});
  expect_refused(small({"--lookups", "dense:probes=3"}), {"dense:probes=3", "no parameters"});
  expect_refused(small({"--lookups", "ivf:probes=none"}), {"probes"});
  expect_refused(bench({"--targets", "65"}), {"--targets 65", "multiple of the window"});
  expect_refused(bench({"--targets", "64", "--stride", "65"}), {"--stride 65", "at most the window"});
  expect_refused(bench({"--memory", "100000", "--targets", "64"}), {text_, "--memory and --targets"});
  expect_refused(bench({"--memory", "0"}), {"--memory", "'0'"});
  expect_refused(small({"--overlap", "8"}), {"--overlap", "plain windows"});
  expect_refused({"bench", "index", "--model", stories(), "--text", text_}, {stories(), "--mem-layers"});
  expect_refused({"bench", "index", "--model", stories()}, {"--text"});
}

class MemoryIndexCommand : public CommandTest {
 protected:
  Words index(const Words& rest) const {
    return Words{"memory", "index", path("m"), "--threads", "2", "--quiet"} + rest;
  }
  const Words lists_ = {"--index-parameters", "chunk=256,lists=8"};
};

TEST_F(MemoryIndexCommand, StoresWhatIngestWouldHave) {
  write("a.txt", story(300, 1));
  write("b.txt", story(100, 2));
  ingest("m", {path("a.txt"), path("b.txt")});
  const MemoryState before = *state_of(path("m"));
  const nlohmann::json report = json_of(index(lists_ + Words{"--json"}));
  EXPECT_EQ(report.at("index"), "ivf");
  EXPECT_EQ(report.at("documents"), 2);
  EXPECT_EQ(report.at("entries"), before.documents[0].tokens + before.documents[1].tokens);
  EXPECT_FALSE(report.at("interrupted"));
  const MemoryState after = *state_of(path("m"));
  for (std::size_t d = 0; d < 2; ++d) {
    EXPECT_TRUE(before.documents[d].indexes.empty());
    EXPECT_EQ(after.documents[d].indexes.size(), 8U) << "2 layers of 4 heads";
    EXPECT_EQ(after.documents[d].windows, before.documents[d].windows) << "nothing is computed again";
  }
  EXPECT_EQ(MemoryFile::open(path("m")).documents()[0].indexes.entries_covered, before.documents[0].tokens);
  // A question finds the same in stored lists as in lists made for it.
  const Words ivf =
      Words{"--index", "ivf", "--top-k", "16"} + Words{"--index-parameters", "chunk=256,lists=8,probes=3"};
  const std::string stored = ask("m", "Once upon", ivf);
  const nlohmann::json asked = json_of(ask_words("m", "Once upon", ivf + Words{"--json"}));
  EXPECT_GT(asked.at("lists_compared_per_query"), 8);
  EXPECT_GT(asked.at("keys_scanned_per_query"), 16);
  EXPECT_LT(asked.at("keys_scanned_per_query"), asked.at("memory_entries").get<double>() / 2);
  EXPECT_FALSE(json_of(ask_words("m", "Once upon", {"--json"})).contains("keys_scanned_per_query"));
  std::filesystem::remove(path("m"));
  ingest("m", {path("a.txt"), path("b.txt")});
  EXPECT_EQ(ask("m", "Once upon", ivf), stored);
}

TEST_F(MemoryIndexCommand, DoesNothingASecondTimeAndGoesOnWithNewDocuments) {
  ingest("m", {write("a.txt", story(200, 1))});
  ASSERT_EQ(run(index(lists_)).exit_code, 0);
  const std::string once = read_text(path("m"));
  const nlohmann::json again = json_of(index(lists_ + Words{"--json"}));
  EXPECT_EQ(again.at("documents"), 0);
  EXPECT_EQ(again.at("bytes"), 0);
  EXPECT_EQ(read_text(path("m")), once);
  ingest("m", {write("b.txt", story(100, 2))});
  EXPECT_EQ(json_of(index(lists_ + Words{"--json"})).at("documents"), 1);
  EXPECT_EQ(json_of(index({"--index", "int8", "--json"})).at("documents"), 2) << "other lists take their place";
}

TEST_F(MemoryIndexCommand, RefusesWhatCannotBe) {
  ingest("m", {write("a.txt", story(50, 1))});
  for (const char* name : {"dense", "exact", "Flat", "IVF4,Flat", "auto", "garbage"}) {
    expect_refused(index({"--index", name}), {"--index " + std::string(name), "ivf or int8"});
  }
  for (const char* parameters :
       {"lists=0", "chunk=0", "lists=65537", "chunk=-1", "speed=9", "probes", "lists=8;chunk=9"}) {
    expect_refused(index({"--index-parameters", parameters}), {"index parameters"});
  }
  expect_refused(index({"--index", "int8", "--index-parameters", "lists=8"}), {"index parameters 'lists=8'", "int8"});
  expect_refused({"memory", "index", path("m"), "--threads", "0"}, {"--threads", "'0'"});
  expect_refused({"memory", "index", path("nothing")}, {path("nothing")});
  expect_refused({"memory", "index", path("a.txt")}, {path("a.txt"), "not a memory file"});
  expect_refused({"memory", "index"}, {"memory"});
}

}  // namespace
}  // namespace memlane
