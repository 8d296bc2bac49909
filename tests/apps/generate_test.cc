// Generated text, and how commands print.

#include <chrono>
#include <csignal>
#include <sstream>
#include <thread>

#include "runtime/utf8.h"
#include "tests/apps/command_test.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;

class GenerateCommand : public CommandTest {
 protected:
  static Words words(const Words& rest) { return Words{"generate", "--model", stories(), "--threads", "2"} + rest; }
};

TEST_F(GenerateCommand, GivesTheRecordedGreedyTextFromTheBeginning) {
  const auto golden = nlohmann::json::parse(read_text(testing::golden_folder("stories260K") / "greedy_200.json"));
  const std::string tokens = std::to_string(golden.at("greedy_ids").size());
  const nlohmann::json found = json_of(words({"--max-tokens", tokens, "--ignore-eos", "--json"}));
  EXPECT_EQ(found.at("ids"), golden.at("greedy_ids"));
  EXPECT_EQ(found.at("text"), golden.at("text"));
  const Outcome streamed = run(words({"--max-tokens", tokens, "--ignore-eos"}));
  EXPECT_EQ(streamed.out, golden.at("text").get<std::string>() + "\n");
  EXPECT_EQ(streamed.err, "");
}

TEST_F(GenerateCommand, StreamsWholeCharactersInEveryWrite) {
  const Outcome outcome = run(words({"--temperature", "4", "--seed", "3", "--max-tokens", "200", "--ignore-eos"}));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_GT(outcome.pieces.size(), 1U) << "text comes as it is made";
  for (const std::string& piece : outcome.pieces) EXPECT_FALSE(first_invalid_utf8(piece).has_value());
  const auto is_multibyte = [](char c) { return static_cast<unsigned char>(c) >= 0x80; };
  EXPECT_TRUE(std::any_of(outcome.out.begin(), outcome.out.end(), is_multibyte)) << "nothing was tested";
}

TEST_F(GenerateCommand, SaysTheSameForTheSameSeed) {
  const Words sampled = words({"--temperature", "1", "--sample-top-k", "40", "--top-p", "0.9", "--repetition-penalty",
                               "1.1", "--prompt", "Once upon", "--max-tokens", "40", "--seed"});
  EXPECT_EQ(run(sampled + Words{"5"}).out, run(sampled + Words{"5"}).out);
  EXPECT_NE(run(sampled + Words{"5"}).out, run(sampled + Words{"6"}).out);
}

TEST_F(GenerateCommand, ReadsALongFileThenThePrompt) {
  const Words memory = {"--mem-layers", "2,3", "--window", "64", "--last-context-length", "32", "--max-tokens", "10"};
  const std::string text = story(200, 1);
  const Outcome from_file = run(words(memory + Words{"--file", write("a.txt", text), "--prompt", " Once upon"}));
  ASSERT_EQ(from_file.exit_code, 0) << from_file.err;
  EXPECT_EQ(from_file.out, run(words(memory + Words{"--prompt", text + " Once upon"})).out);
  EXPECT_THAT(from_file.err, HasSubstr("into memory (layers 2,3)"));
  const nlohmann::json report = json_of(words(memory + Words{"--prompt", text, "--json", "--quiet"}));
  const std::size_t tokens = Tokenizer::open(stories()).encode(text, true).size();
  EXPECT_EQ(report.at("prompt_tokens"), tokens);
  EXPECT_EQ(report.at("memory_entries"), tokens - 32);
}

TEST_F(GenerateCommand, AndAskReportAsJson) {
  ingest("m", {write("a.txt", story(60, 1))});
  const nlohmann::json generated = json_of(words({"--prompt", "Once", "--max-tokens", "5", "--json"}));
  const nlohmann::json answer = json_of(ask_words("m", "Once", {"--json"}));
  for (const char* key : {"text", "ids", "stop", "prompt_tokens", "prompt_seconds", "generated_tokens",
                          "generation_seconds", "memory_entries"}) {
    EXPECT_TRUE(generated.contains(key)) << key;
    EXPECT_TRUE(answer.contains(key)) << key;
  }
  for (const char* key : {"question", "memory", "documents", "lookup"}) EXPECT_TRUE(answer.contains(key)) << key;
  EXPECT_EQ(generated.at("generated_tokens"), 5);
  EXPECT_EQ(generated.at("stop"), "length");
}

TEST_F(GenerateCommand, AskAnswersEachLineOfAFileAsIfItWereAskedAlone) {
  ingest("m", {write("a.txt", story(60, 1))});
  const std::string questions = write("questions", "Once upon\r\n\n  \nThe little dog");
  const Words words = {"ask", "--model", stories(), "--memory", path("m"), "--threads", "2", "--max-tokens", "12"};
  const std::string first = ask("m", "Once upon"), second = ask("m", "The little dog");
  EXPECT_NE(first, second);
  const Outcome outcome = run(words + Words{"--questions", questions});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "> Once upon\n" + first + "\n> The little dog\n" + second + "\n");
  std::istringstream lines(run(words + Words{"--questions", questions, "--json"}).out);
  for (const char* question : {"Once upon", "The little dog"}) {
    std::string line;
    ASSERT_TRUE(std::getline(lines, line));
    const auto answer = nlohmann::json::parse(line);
    EXPECT_EQ(answer.at("question"), question);
    EXPECT_EQ(answer.at("ids"), json_of(ask_words("m", question, {"--json"})).at("ids"));
  }
}

TEST_F(GenerateCommand, AskRefusesFilesOfQuestionsThatHaveNone) {
  ingest("m", {write("a.txt", story(60, 1))});
  const Words words = {"ask", "--model", stories(), "--memory", path("m")};
  expect_refused(words, {"question", "--questions", "neither"});
  expect_refused(words + Words{"--questions", write("q", "Once"), "Once"}, {"question", "--questions", "both"});
  expect_refused(words + Words{"--questions", path("none")}, {path("none"), "file of questions"});
  expect_refused(words + Words{"--questions", write("empty", "")}, {path("empty"), "empty"});
  expect_refused(words + Words{"--questions", write("spaces", " \n\t\r\n")}, {path("spaces"), "question"});
  expect_refused(words + Words{"--questions", write("latin", "caf\xe9")}, {path("latin"), "UTF-8"});
}

TEST_F(GenerateCommand, DescribesAModelAsJson) {
  const nlohmann::json info = json_of({"info", stories(), "--json"});
  for (const char* key :
       {"kind", "model_type", "parameters", "layers", "heads", "kv_heads", "head_dim", "vocab_size", "window",
        "mem_layers", "mem_dtype", "weight_bytes", "memory_bytes_per_token", "tokenizer_pieces"}) {
    EXPECT_TRUE(info.contains(key)) << key;
  }
  EXPECT_EQ(info.at("layers"), 5);
  EXPECT_EQ(info.at("kv_heads"), 4);
  EXPECT_THAT(run({"info", stories()}).out, HasSubstr("layers: 5\n"));
}

TEST_F(GenerateCommand, WritesJsonWhateverAFileIsCalled) {
  const std::string name = "odd \xff\n\x1b[31m name";
  ingest(name, {write("a.txt", story(60, 1))});
  EXPECT_TRUE(json_of(ask_words(name, "Once", {"--json"})).contains("text"));
  EXPECT_TRUE(json_of({"info", path(name), "--json"}).contains("entries"));
  expect_refused(Words{"info", path(name) + "\n\x1b[31m"}, {"found nothing"});
}

TEST_F(GenerateCommand, FailsIfStandardOutputIsFull) {
  ingest("m", {write("a.txt", story(60, 1))});
  const std::vector<Words> commands = {words({"--max-tokens", "3"}),  words({"--max-tokens", "3", "--json"}),
                                       ask_words("m", "Once"),        {"info", path("m")},
                                       {"info", stories(), "--json"}, {"--help"}};
  for (const Words& command : commands) {
    const Outcome outcome = run(Invocation{.arguments = command, .output_to = "/dev/full"});
    EXPECT_EQ(outcome.exit_code, 2) << command.front();
    EXPECT_THAT(outcome.err, HasSubstr("standard output: cannot write"));
  }
}

TEST_F(GenerateCommand, StopsWithTheTextSoFarOnCtrlC) {
  Program program(Invocation{.arguments = words({"--ignore-eos", "--max-tokens", "100000"})});
  program.wait_for_output();
  program.send(SIGINT);
  const Outcome outcome = program.finish();
  EXPECT_EQ(outcome.exit_code, 1) << outcome.err;
  EXPECT_THAT(outcome.out, ::testing::StartsWith("Once"));
  EXPECT_FALSE(first_invalid_utf8(outcome.out).has_value());
}

TEST(Help, OfEveryCommandEndsWell) {
  for (const char* command : {"ingest", "ask", "generate", "logits", "info"}) {
    const Outcome outcome = run({command, "--help"});
    EXPECT_EQ(outcome.exit_code, 0);
    EXPECT_EQ(outcome.err, "");
    EXPECT_THAT(outcome.out, HasSubstr("Usage"));
    EXPECT_THAT(run({"--help"}).out, HasSubstr(command));
  }
  EXPECT_THAT(run({"ask", "--help"}).out, HasSubstr("--max-tokens COUNT=128")) << "defaults are shown";
  EXPECT_EQ(run({"--version"}).exit_code, 0);
}

}  // namespace
}  // namespace memlane
