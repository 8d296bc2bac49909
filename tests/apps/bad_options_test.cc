// Options that cannot be: each is one line that names the option.

#include "tests/apps/command_test.h"

namespace memlane {
namespace {

struct Refused {
  std::string name;  ///< of the test
  Words words;
  Words named;
};

class RefusedOption : public CommandTest, public ::testing::WithParamInterface<Refused> {};

TEST_P(RefusedOption, IsNamed) {
  const Refused& refused = GetParam();
  expect_refused(Words{"generate", "--model", stories(), "--prompt", "Once"} + refused.words, refused.named);
  // The same for a document. Options of sampling are none of ingest's.
  const Outcome help = run({"ingest", "--help"});
  if (help.out.find(refused.words.front()) == std::string::npos) return;
  const Words memory = refused.words.front() == "--mem-layers" ? Words{} : Words{"--mem-layers", "2"};
  const Words ingest = {
      "ingest", "--quiet", "--model", stories(), "--memory", path("m"), write("a.txt", "Once upon a time")};
  expect_refused(ingest + memory + refused.words, refused.named);
}

INSTANTIATE_TEST_SUITE_P(
    Each, RefusedOption,
    ::testing::Values(
        Refused{"WindowZero", {"--window", "0"}, {"--window", "1 to 512", "found 0"}},
        Refused{"WindowTooLong", {"--window", "513"}, {"--window", "1 to 512", "found 513"}},
        Refused{"WindowNegative", {"--window", "-1"}, {"--window", "whole number", "'-1'"}},
        Refused{"WindowLetters", {"--window", "abc"}, {"--window", "whole number", "'abc'"}},
        Refused{"WindowFloat", {"--window", "1e30"}, {"--window", "whole number", "'1e30'"}},
        Refused{"WindowHex", {"--window", "0x10"}, {"--window", "'0x10'"}},
        Refused{"WindowHuge", {"--window", "18446744073709551617"}, {"--window", "18446744073709551617"}},
        Refused{"WindowTwice", {"--window", "8", "--window", "9"}, {"--window"}},
        Refused{"MemoryWindowTooLong", {"--memory-window", "65", "--window", "64"}, {"--memory-window"}},
        Refused{"OverlapOfAWholeWindow", {"--overlap", "64", "--window", "64"}, {"--overlap", "0 to 63", "found 64"}},
        Refused{"OverlapNegative", {"--overlap", "-1"}, {"--overlap", "'-1'"}},
        Refused{"SlidingWindowTooLong",
                {"--sliding-window", "65", "--window", "64"},
                {"--sliding-window", "1 to 64", "found 65"}},
        Refused{"SinksAlone", {"--sinks", "4"}, {"--sinks 4", "--sliding-window"}},
        Refused{"CappedDistanceZero", {"--capped-distance", "0"}, {"--capped-distance", "found 0"}},
        Refused{"CappedAndSliding",
                {"--capped-distance", "9", "--sliding-window", "9"},
                {"--capped-distance", "--sliding-window", "found both"}},
        Refused{"DynamicModeUnknown", {"--dynamic-mode", "often"}, {"--dynamic-mode often", "inconsistent"}},
        Refused{"DynamicModeOfNothing", {"--dynamic-mode", "consistent"}, {"--dynamic-mode consistent", "--rope"}},
        Refused{"LastContextZero", {"--last-context-length", "0"}, {"--last-context-length", "found 0"}},
        Refused{"LastContextBeyondWindow",
                {"--last-context-length", "65", "--window", "64"},
                {"--last-context-length", "1 to 64", "found 65"}},
        Refused{"DeviceUnknown", {"--device", "gpu"}, {"--device gpu", "cpu, cuda, cuda:N or auto"}},
        Refused{"DeviceBadNumber", {"--device", "cuda:x"}, {"--device cuda:x", "cuda:N"}},
        Refused{"DeviceThatIsNotThere", {"--device", "cuda:99"}, {"--device cuda:99", "use --device cpu"}},
        Refused{"LayerOutside", {"--mem-layers", "5"}, {"--mem-layers", "0 to 4", "found 5"}},
        Refused{"LayerNegative", {"--mem-layers", "-1"}, {"--mem-layers", "-1"}},
        Refused{"LayerLetters", {"--mem-layers", "two"}, {"--mem-layers two", "such as 2,3"}},
        Refused{"LayerTwice", {"--mem-layers", "2,3,2"}, {"--mem-layers", "2 twice"}},
        Refused{"LayerMissing", {"--mem-layers", "2,"}, {"--mem-layers 2,", "such as 2,3"}},
        Refused{"TopKZero", {"--top-k", "0", "--index", "exact"}, {"--top-k", "from 1", "'0'"}},
        Refused{"TopKNegative", {"--top-k", "-1", "--index", "exact"}, {"--top-k", "'-1'"}},
        Refused{"TopKOfDense", {"--top-k", "5"}, {"--top-k 5", "dense", "--index exact"}},
        Refused{"IndexUnknown", {"--index", "garbage"}, {"index 'garbage'", "use for example Flat"}},
        Refused{"IndexOfOtherDimensions", {"--index", "IVF4,PQ3"}, {"index 'IVF4,PQ3'"}},
        Refused{"IndexParametersUnknown",
                {"--index", "Flat", "--index-parameters", "speed=9"},
                {"index parameters 'speed=9'", "nprobe"}},
        Refused{"IndexParametersOfDense", {"--index-parameters", "nprobe=9"}, {"--index-parameters nprobe=9", "dense"}},
        Refused{"ComputeUnknown", {"--compute", "f64"}, {"--compute f64", "float32"}},
        Refused{"WeightsUnknown", {"--weights", "int3"}, {"--weights int3", "int8 or int4"}},
        Refused{"WeightsOfMemoryType", {"--weights", "float16"}, {"--weights float16", "bfloat16"}},
        Refused{"MemoryTypeUnknown", {"--mem-dtype", "int8"}, {"--mem-dtype int8", "bfloat16"}},
        Refused{"InstructionSetUnknown", {"--instruction-set", "mmx"}, {"instruction set mmx", "avx2"}},
        Refused{"ThreadsZero", {"--threads", "0"}, {"--threads", "'0'"}},
        Refused{"ThreadsTooMany", {"--threads", "100000"}, {"--threads", "4096", "'100000'"}},
        Refused{"MaxTokensZero", {"--max-tokens", "0"}, {"--max-tokens", "from 1", "'0'"}},
        Refused{"MaxTokensHuge", {"--max-tokens", "1000000000000000000"}, {"--max-tokens", "1000000000000000000"}},
        Refused{"TemperatureNegative", {"--temperature", "-1"}, {"--temperature -1"}},
        Refused{"TemperatureNaN", {"--temperature", "nan"}, {"--temperature", "a number", "'nan'"}},
        Refused{"TemperatureLetters", {"--temperature", "hot"}, {"--temperature", "a number", "'hot'"}},
        Refused{"TopPZero", {"--top-p", "0"}, {"--top-p 0"}}, Refused{"TopPTwo", {"--top-p", "2"}, {"--top-p 2"}},
        Refused{"SampleTopKNegative", {"--sample-top-k", "-1"}, {"--sample-top-k", "'-1'"}},
        Refused{"SeedNegative", {"--seed", "-1"}, {"--seed", "'-1'"}},
        Refused{"RepetitionPenaltyZero", {"--repetition-penalty", "0"}, {"--repetition-penalty 0"}},
        Refused{"Unknown", {"--speed", "9"}, {"--speed", "generate --help"}},
        Refused{"WithoutValue", {"--window"}, {"--window"}}),
    [](const auto& each) { return each.param.name; });

class BadCommandLine : public CommandTest {};

TEST_F(BadCommandLine, NamesWhatIsMissing) {
  expect_refused(Words{}, {"subcommand", "memlane --help"});
  expect_refused(Words{"bench", "quality"}, {"quality: expected one of recall, perplexity, cost, run"});
  expect_refused(Words{"bench", "run", "x.json"}, {"--out", "memlane bench run --help"});
  expect_refused(Words{"read"}, {"read: expected one of ", "ingest, ask, generate"});
  expect_refused(Words{"--mdel", "x"}, {"--mdel"});
  expect_refused(Words{"ingest"}, {"required", "memlane ingest --help"});
  expect_refused(Words{"ingest", "--model", stories(), "a.txt"}, {"--memory", "memlane ingest --help"});
  expect_refused(Words{"ingest", "--model", stories(), "--memory", path("m")}, {"documents"});
  expect_refused(Words{"ask", "--model", stories(), "--memory", path("m")}, {"question"});
  expect_refused(Words{"ask", "--memory", path("m"), "Who?"}, {"--model"});
  expect_refused(Words{"generate"}, {"--model"});
  expect_refused(Words{"logits", "--model", stories()}, {"--output"});
  expect_refused(Words{"info"}, {"path"});
  expect_refused(Words{"info", path("nothing")}, {path("nothing"), "found nothing"});
  expect_refused(Words{"generate", "--model", stories(), "--prompt", "a", "b"}, {"b"});
}

TEST_F(BadCommandLine, IngestWantsMemoryLayers) {
  const std::string document = write("a.txt", story(20, 1));
  expect_refused(ingest_words("m", {document}), {stories(), "--mem-layers"});
  expect_refused(ingest_words("m", {document, "--mem-layers", "none"}), {"--mem-layers"});
  expect_refused(ingest_words("m", {document, document, "--mem-layers", "2", "--name", "x"}), {"--name x", "found 2"});
}

TEST_F(BadCommandLine, QuestionsAndPromptsAreText) {
  ingest("m", {write("a.txt", story(20, 1))});
  expect_refused(ask_words("m", ""), {"question", "found nothing"});
  expect_refused(ask_words("m", "   "), {"question", "spaces"});
  expect_refused(ask_words("m", "ab\xc3"), {"question", "UTF-8", "offset 2"});
  const Words generate = {"generate", "--model", stories(), "--file", path("a.txt")};
  expect_refused(generate + Words{"--prompt", "ab\xc3"}, {"--prompt", "UTF-8", "offset 2"});
}

}  // namespace
}  // namespace memlane
