// memlane rope, and what --rope and --memory-rope do to models and memory files.

#include "tests/apps/command_test.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;

class RopeCommand : public CommandTest {
 protected:
  static nlohmann::json of_flags(const Words& flags) { return json_of(Words{"rope", "--json"} + flags); }
};

TEST_F(RopeCommand, EveryMethodGivesItsFrequencies) {
  const auto golden = nlohmann::json::parse(read_text(testing::golden_folder("rope") / "rope_scaling.json"));
  std::map<std::string, nlohmann::json> last;
  for (const auto& each : golden.at("cases")) last[each.at("method")] = each;
  ASSERT_EQ(last.size(), 7U);
  for (const auto& [method, each] : last) {
    SCOPED_TRACE(method);
    const auto text = [&](const char* key) { return each.at(key).dump(); };
    Words flags = {
        "--method",         method,     "--head-dim",   text("head_dim"),    "--rope-theta",
        text("rope_theta"), "--factor", text("factor"), "--original-length", text("original_max_position_embeddings")};
    if (each.contains("sequence_length")) flags = flags + Words{"--length", text("sequence_length")};
    const auto found = of_flags(flags);
    EXPECT_NEAR(found.at("attention_factor").get<double>() / each.at("attention_factor").get<double>(), 1, 1e-6);
    const std::vector<double> expected = each.at("inv_freq"), inv_freq = found.at("inv_freq");
    ASSERT_EQ(inv_freq.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(inv_freq[i] / expected[i], 1, 1e-6);
  }
  const Words rest = {"--head-dim", "4", "--factor", "8", "--original-length", "2048", "--length", "16384"};
  EXPECT_EQ(of_flags(rest + Words{"--method", "none"}).at("inv_freq"), nlohmann::json({1.0, 0.01}));
  EXPECT_EQ(
      of_flags(rest + Words{"--method", "llama3", "--low-freq-factor", "1", "--high-freq-factor", "4"})["inv_freq"],
      nlohmann::json({1.0, of_flags(rest + Words{"--method", "llama3"})["inv_freq"][1]}));
  EXPECT_EQ(of_flags(rest + Words{"--method", "longrope", "--short-factor", "1,1", "--long-factor", "2,4"})["inv_freq"],
            nlohmann::json({0.5, 0.0025}));
}

TEST_F(RopeCommand, ShowsATableAndWarnings) {
  const Outcome outcome =
      run({"rope", "--head-dim", "128", "--method", "yarn", "--factor", "4", "--original-length", "2048"});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  for (const char* part : {"yarn", "factor 4", "attention factor 1.13863", "ramp from pair 16 to pair 41", "unscaled",
                           "blended", "interpolated", "warning: "}) {
    EXPECT_THAT(outcome.out, HasSubstr(part));
  }
}

TEST_F(RopeCommand, ShowsBothKindsOfLayersOfAModel) {
  copy_of_stories("model");
  auto config = nlohmann::json::parse(read_text(path("model/config.json")));
  config["rope_parameters"] = {
      {"full_attention", {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 128}}},
      {"memory_attention", {{"rope_type", "default"}}}};
  config["mem_layers"] = {2};
  write("model/config.json", config.dump());
  const auto found = of_flags({"--model", path("model")});
  EXPECT_EQ(found.at("method"), "yarn");
  EXPECT_EQ(found.at("memory").at("method"), "none");
  EXPECT_EQ(found.at("memory").at("attention_factor"), 1.0);
  EXPECT_EQ(of_flags({"--model", path("model"), "--rope", "linear:factor=2"}).at("method"), "linear");
}

TEST_F(RopeCommand, AFactorOfMemoryLayersThatIsNotSaidIsThatOfTheirWindow) {
  copy_of_stories("model");
  auto config = nlohmann::json::parse(read_text(path("model/config.json")));
  config["mem_layers"] = {2};
  write("model/config.json", config.dump());
  const auto found =
      of_flags({"--model", path("model"), "--rope", "linear", "--memory-rope", "linear", "--length", "2048"});
  EXPECT_EQ(found.at("factor"), 4.0);
  EXPECT_EQ(found.at("memory").at("length"), 512);
  EXPECT_EQ(found.at("memory").at("factor"), 1.0);
}

// As in the code of YaRN's authors: l / L beyond L, else nothing.
TEST_F(RopeCommand, DynamicLinearHasNoFactorAndSaysSo) {
  const Words words = {"--head-dim", "4", "--method", "dynamic-linear", "--factor", "8", "--original-length", "2048"};
  EXPECT_EQ(of_flags(words + Words{"--length", "1024"}).at("inv_freq"), nlohmann::json({1.0, 0.01}));
  const auto found = of_flags(words + Words{"--length", "4096"});
  EXPECT_EQ(found.at("inv_freq"), nlohmann::json({0.5, 0.005}));
  EXPECT_THAT(found.at("warnings").dump(), HasSubstr("the factor 8 is not used"));
}

TEST_F(RopeCommand, WarnsOfAFactorInTheConfigThatNothingReads) {
  copy_of_stories("model");
  auto config = nlohmann::json::parse(read_text(path("model/config.json")));
  const auto warnings = [&](const nlohmann::json& scaling, const Words& flags = {}) {
    config["rope_scaling"] = scaling;
    write("model/config.json", config.dump());
    return of_flags(Words{"--model", path("model")} + flags).at("warnings").dump();
  };
  nlohmann::json yarn = {{"type", "dynamic-yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 128}};
  EXPECT_THAT(warnings(yarn), HasSubstr("the factor 4 is not used: dynamic-yarn"));
  EXPECT_THAT(warnings(yarn, {"--rope", "dynamic-yarn:factor=2"}), ::testing::Not(HasSubstr("is not used")));
  yarn["finetuned"] = true;
  EXPECT_THAT(warnings(yarn), ::testing::Not(HasSubstr("is not used")));
}

TEST_F(RopeCommand, NamesWhatIsWrong) {
  expect_refused(Words{"rope"}, {"--head-dim"});
  expect_refused(Words{"rope", "--head-dim", "7"}, {"--head-dim", "found 7"});
  expect_refused(Words{"rope", "--head-dim", "8", "--method", "yearn"}, {"--method", "'yearn'"});
  expect_refused(Words{"rope", "--head-dim", "8", "--method", "yarn"}, {"--factor", "found none"});
  expect_refused(Words{"rope", "--head-dim", "8", "--method", "yarn", "--factor", "0.5"}, {"factor", "from 1"});
  expect_refused(Words{"rope", "--head-dim", "8", "--method", "yarn", "--factor", "nan"}, {"factor"});
  expect_refused(Words{"rope", "--head-dim", "8", "--rope-theta", "-1"}, {"theta"});
  expect_refused(Words{"rope", "--head-dim", "8", "--truncate", "maybe"}, {"--truncate", "false or true", "'maybe'"});
  expect_refused(Words{"rope", "--head-dim", "8", "--beta-fast", "fast"}, {"--beta-fast", "a number", "'fast'"});
  expect_refused(Words{"rope", "--head-dim", "8", "--short-factor", "1,b"}, {"--short-factor", "a number", "'b'"});
  expect_refused(Words{"rope", "--head-dim", "8", "--method", "longrope", "--factor", "2", "--short-factor", "1,2"},
                 {"short_factor", "expected 4 numbers"});
  expect_refused(Words{"rope", "--model", stories(), "--method", "yarn"}, {"--model", "--rope"});
  expect_refused(Words{"rope", "--model", stories(), "--rope", "yarn:speed=9"}, {"--rope", "speed"});
}

class ScaledMemory : public CommandTest {};

TEST_F(ScaledMemory, IsAskedWithTheScalingItWasMadeWith) {
  const std::string document = write("a.txt", story(300, 1));
  ingest("m", {document}, {"--rope", "yarn:factor=2", "--memory-rope", "linear:factor=2"});
  const MemoryFile file = MemoryFile::open(path("m"));
  EXPECT_THAT(file.header().settings.at("rope"), HasSubstr("yarn:theta=10000:factor=2"));
  EXPECT_THAT(file.header().settings.at("memory rope"), HasSubstr("linear"));
  const std::string answer = ask("m", "Once upon");
  EXPECT_EQ(ask("m", "Once upon", {"--rope", "yarn:factor=2", "--memory-rope", "linear:factor=2"}), answer);
  expect_refused(ask_words("m", "Once", {"--rope", "none"}), {path("m"), "rope yarn", "none asked for"});
  expect_refused(ask_words("m", "Once", {"--rope", "yarn:factor=3"}), {path("m"), "rope yarn", "factor=3"});
  expect_refused(ask_words("m", "Once", {"--memory-rope", "none"}), {path("m"), "memory rope linear"});
  expect_refused(ingest_words("m", {"--rope", "yarn:factor=3", document}), {path("m"), "factor=3"});
}

TEST_F(ScaledMemory, UnscaledFilesSayNothingOfIt) {
  const std::string document = write("a.txt", story(300, 1));
  ingest("m", {document});
  EXPECT_TRUE(MemoryFile::open(path("m")).header().settings.empty());
  EXPECT_EQ(ask("m", "Once upon", {"--rope", "none"}), ask("m", "Once upon"));
  expect_refused(ask_words("m", "Once", {"--rope", "yarn:factor=2"}), {path("m"), "rope none", "yarn"});
  expect_refused(ask_words("m", "Once", {"--rope", "base:theta=20000"}), {path("m"), "rope none", "theta=20000"});
}

TEST_F(ScaledMemory, AWindowBeyondTheModelsContextIsRemembered) {
  const std::string document = write("a.txt", story(900, 1));
  const Words flags = {"--mem-layers", "2,3", "--rope", "none", "--window", "700"};
  ASSERT_EQ(run(ingest_words("m", flags + Words{document})).exit_code, 0);
  EXPECT_EQ(MemoryFile::open(path("m")).header().window, 700U);
  ask("m", "Once upon");
}

}  // namespace
}  // namespace memlane
