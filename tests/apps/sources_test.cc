// ask --sources and bench distraction.

#include "tests/apps/command_test.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class SourcesCommand : public CommandTest {
 protected:
  static void drop_times(nlohmann::json& value) {
    for (auto& each : value.at("cells")) each.erase("seconds");
  }
};

TEST_F(SourcesCommand, NameDocumentPlaceAndTextAndChangeNothing) {
  const std::string texts[] = {story(150, 1), story(120, 2)};
  ingest("m", {write("1.txt", texts[0]), write("2.txt", texts[1])});
  for (const Words& lookup : {Words{}, Words{"--index", "exact"}, Words{"--index", "Flat"}}) {
    const nlohmann::json plain = json_of(ask_words("m", "Once upon", lookup + Words{"--json"}));
    const nlohmann::json report = json_of(ask_words("m", "Once upon", lookup + Words{"--json", "--sources=4"}));
    EXPECT_EQ(report.at("ids"), plain.at("ids"));
    EXPECT_FALSE(plain.contains("sources"));
    const nlohmann::json& sources = report.at("sources");
    EXPECT_EQ(sources.at("tokens"), 12) << "as many as were generated";
    double of_documents = 0;
    for (const auto& document : sources.at("documents")) of_documents += document.at("weight").get<double>();
    EXPECT_NEAR(of_documents, sources.at("memory_weight").get<double>(), 1e-9);
    EXPECT_GT(of_documents, 0);
    EXPECT_LT(of_documents, 1);
    ASSERT_EQ(sources.at("spans").size(), 4U);
    double before = 1;
    for (const auto& span : sources.at("spans")) {
      const std::size_t begin = span.at("byte_begin"), end = span.at("byte_end");
      EXPECT_EQ(span.at("bytes_of"), "original");
      EXPECT_EQ(span.at("text"), texts[span.at("document").get<std::size_t>()].substr(begin, end - begin));
      EXPECT_LE(span.at("weight").get<double>(), before);
      before = span.at("weight");
    }
  }
}

TEST_F(SourcesCommand, AreOfTheDocumentsThatAreAsked) {
  ingest("m", {write("1.txt", story(150, 1)), write("2.txt", story(120, 2))});
  const nlohmann::json report =
      json_of(ask_words("m", "Once upon", {"--json", "--sources", "--documents", "2.txt"})).at("sources");
  EXPECT_EQ(report.at("documents").size(), 1U);
  for (const auto& span : report.at("spans")) EXPECT_EQ(span.at("document"), 1);
  const Outcome lines = run(ask_words("m", "Once upon", {"--sources"}));
  EXPECT_EQ(lines.exit_code, 0) << lines.err;
  EXPECT_THAT(lines.out, HasSubstr("sources: "));
  EXPECT_THAT(lines.out, HasSubstr(".txt, bytes "));
  EXPECT_THAT(ask("m", "Once upon"), Not(HasSubstr("sources")));
  for (const char* count : {"--sources=0", "--sources=-1", "--sources=x", "--sources=1001"}) {
    expect_refused(ask_words("m", "Once", {count}), {"--sources"});
  }
}

TEST_F(SourcesCommand, DistractionIsMeasuredTheSameForASeed) {
  const Words words = {"bench",        "distraction",
                       "--model",      stories(),
                       "--threads",    "2",
                       "--mem-layers", "2,3",
                       "--text",       write("a.txt", story(300, 1)),
                       "--text",       write("b.txt", story(300, 2)),
                       "--documents",  "1,2,4",
                       "--tokens",     "60",
                       "--targets",    "30",
                       "--trials",     "3",
                       "--quiet"};
  nlohmann::json report = json_of(words + Words{"--json"}), again = json_of(words + Words{"--json"});
  drop_times(report);
  drop_times(again);
  EXPECT_EQ(report, again);
  ASSERT_EQ(report.at("cells").size(), 4U);
  EXPECT_EQ(report.at("cells").at(0).at("documents"), 0) << "what it is without memory";
  for (const std::size_t cell : {1, 2, 3}) {
    const nlohmann::json& found = report.at("cells").at(cell);
    EXPECT_EQ(found.at("tokens"), 3 * 29);
    EXPECT_GT(found.at("right_weight").get<double>(), 0);
    EXPECT_LT(found.at("memory_weight").get<double>(), 1);
    const double share = found.at("right_share");
    EXPECT_NEAR(share, 1, cell == 1 ? 1e-9 : 1) << "the only document has all";
    EXPECT_EQ(share<1 - 1e-9, cell> 1);
  }
  EXPECT_THAT(run(words).out, HasSubstr("right document"));
  expect_refused(words + Words{"--documents", "99"}, {"--documents"});
}

TEST_F(SourcesCommand, DistractionRefusesWhatDoesNotFit) {
  const std::string text = write("a.txt", story(300, 1));
  const auto words = [&](const Words& rest) {
    return Words{"bench", "distraction", "--model", stories(), "--mem-layers", "2", "--text", text} + rest;
  };
  expect_refused(words({"--tokens", "100"}), {"--documents 64", "612 tokens", "--text"});
  expect_refused(words({"--documents", "1", "--tokens", "10", "--targets", "600"}), {"--targets 600", "512"});
  expect_refused(words({"--documents", "1", "--tokens", "10", "--targets", "20", "--overlap", "5"}), {"one by one"});
}

}  // namespace
}  // namespace memlane
