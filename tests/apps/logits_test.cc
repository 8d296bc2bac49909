// What ask computes is what one call of the reference computes; logits shows it.

#include "tests/apps/command_test.h"

namespace memlane {
namespace {

using testing::golden_folder;
using testing::max_difference;

class LogitsCommand : public CommandTest {
 protected:
  static constexpr const char* kQuestion = "Once upon a time there was a big dog";

  /// The logits of a question put to a memory, and of the document's and question's ids in one call.
  void expect_memory_equals_one_call(const Words& lookup, const std::string& dtype) {
    const std::string text = story(250, 7);
    const Words settings = Words{"--mem-dtype", dtype} + lookup;
    ingest("m" + dtype + lookup.back(), {write("a.txt", text)}, settings);
    const Tokenizer tokenizer = Tokenizer::open(stories());
    std::vector<std::int32_t> ids = tokenizer.encode(text, true);
    const std::vector<std::int32_t> question = tokenizer.encode(kQuestion, false);
    ids.insert(ids.end(), question.begin(), question.end());
    const Words model = {"--model", stories(), "--then-ids", write_ids("then", {5, 40, 200, 7})};
    const SafetensorsFile asked =
        logits("asked", model + Words{"--memory", path("m" + dtype + lookup.back()), "--text", kQuestion});
    const SafetensorsFile whole =
        logits("whole", model + settings +
                            Words{"--mem-layers", "2,3", "--window", "64", "--ids", write_ids("ids", ids),
                                  "--last-context-length", std::to_string(question.size())});
    const std::vector<float> expected = whole.floats("logits");
    const std::vector<float> found = asked.floats("logits");
    ASSERT_EQ(found.size(), question.size() * 512);
    EXPECT_TRUE(std::equal(found.begin(), found.end(), expected.end() - static_cast<std::ptrdiff_t>(found.size())));
    EXPECT_EQ(asked.floats("then_logits"), whole.floats("then_logits"));
  }
};

TEST_F(LogitsCommand, OfADenseMemoryEqualThoseOfOneCallBitForBit) {
  expect_memory_equals_one_call({"--index", "dense"}, "bfloat16");
  expect_memory_equals_one_call({"--index", "dense"}, "float32");
}

TEST_F(LogitsCommand, OfAnExactMemoryEqualThoseOfOneCallBitForBit) {
  expect_memory_equals_one_call({"--index", "exact", "--top-k", "16"}, "bfloat16");
}

TEST_F(LogitsCommand, OfAStoredIndexEqualThoseOfOneCallBitForBit) {
  expect_memory_equals_one_call({"--top-k", "16", "--index", "Flat"}, "bfloat16");
  // Trained on what was there when it first could be: an index built anew from all keys would differ.
  expect_memory_equals_one_call({"--top-k", "16", "--index", "IVF4,Flat"}, "float32");
}

TEST_F(LogitsCommand, OfEnoughEntriesEqualTheDenseOnes) {
  ingest("m", {write("a.txt", story(250, 7))}, {"--mem-dtype", "float32"});
  const Words words = {"--model", stories(), "--memory", path("m"), "--text", kQuestion, "--index"};
  const std::vector<float> dense = logits("dense", words + Words{"dense"}).floats("logits");
  for (const char* index : {"exact", "Flat"}) {
    EXPECT_LE(max_difference(logits(index, words + Words{index, "--top-k", "100000"}).floats("logits"), dense), 1e-5)
        << index;
    EXPECT_GT(max_difference(logits("few", words + Words{index, "--top-k", "1"}).floats("logits"), dense), 1e-3)
        << index;
  }
}

TEST_F(LogitsCommand, AreTheReferencesForEveryRecordedModel) {
  const std::map<std::string, double> tolerances = {{"longllama-f32", 1e-4},
                                                    {"longllama-bf16-memory", 2e-3},
                                                    {"longllama-no-memory-positions", 1e-4},
                                                    {"llama-no-memory", 1e-4}};
  for (const auto& [name, tolerance] : tolerances) {
    const SafetensorsFile expected(golden_folder(name) / "expected.safetensors");
    for (const auto& [tensor, stored] : expected.tensors()) {
      if (!tensor.starts_with("prefill_") || !tensor.ends_with(".input_ids")) continue;
      const std::string length = tensor.substr(8, tensor.find('.') - 8);
      SCOPED_TRACE(name + " " + length);
      Words words = {"--model",   golden_folder(name).string(),
                     "--compute", "f32",
                     "--ids",     write_ids("ids", expected.integers(tensor))};
      const bool decodes = expected.find("decode_" + length + ".input_ids") != nullptr;
      if (decodes) {
        words = words + Words{"--then-ids", write_ids("then", expected.integers("decode_" + length + ".input_ids"))};
      }
      const SafetensorsFile found = logits("out", words);
      EXPECT_LE(max_difference(found.floats("logits"), expected.floats("prefill_" + length + ".logits")), tolerance);
      if (decodes) {
        EXPECT_LE(max_difference(found.floats("then_logits"), expected.floats("decode_" + length + ".logits")),
                  tolerance);
      }
    }
  }
}

TEST_F(LogitsCommand, DescribesItsOutputAsJson) {
  const nlohmann::json report = json_of({"logits", "--model", stories(), "--ids", write_ids("ids", {1, 5, 9}),
                                         "--then-ids", write_ids("then", {7}), "--output", path("out"), "--json"});
  EXPECT_EQ(report.at("tokens"), 3);
  EXPECT_EQ(report.at("then_tokens"), 1);
  EXPECT_EQ(report.at("vocab"), 512);
  EXPECT_EQ(report.at("compute"), "float32");
  EXPECT_EQ(report.at("local_length"), 4);
  EXPECT_EQ(report.at("memory_entries"), 0);
  EXPECT_EQ(SafetensorsFile(path("out")).tensor("logits").shape, (std::vector<std::size_t>{3, 512}));
}

TEST_F(LogitsCommand, ReplacesAnEarlierOutput) {
  write("out", "old");
  EXPECT_EQ(logits("out", {"--model", stories(), "--text", "Once"}).floats("logits").size() % 512, 0U);
}

TEST_F(LogitsCommand, RefusesIdsThatAreNone) {
  const Words words = {"logits", "--model", stories(), "--output", path("out")};
  const auto refuse = [&](const std::string& name, const std::string& text, const Words& named) {
    expect_refused(words + Words{"--ids", write(name, text)}, Words{path(name)} + named);
    expect_refused(words + Words{"--text", "a", "--then-ids", path(name)}, Words{path(name)} + named);
  };
  refuse("letters", "1 2 x3", {"'x3'", "number 3"});
  refuse("negative", "1 -2", {"'-2'", "number 2"});
  refuse("fraction", "1.5", {"'1.5'"});
  refuse("huge", "1 99999999999999999999", {"99999999999999999999"});
  refuse("outside", "1 511 512", {"'512'", "511", "number 3"});
  refuse("empty", "", {"found none"});
  refuse("spaces", " \n\t ", {"found none"});
  expect_refused(words + Words{"--ids", path("missing")}, {path("missing")});
  expect_refused(words + Words{"--ids", folder().string()}, {folder().string()});
}

TEST_F(LogitsCommand, WantsOnePrompt) {
  const Words words = {"logits", "--model", stories(), "--output", path("out")};
  expect_refused(words, {"--ids", "--text", "none"});
  expect_refused(words + Words{"--ids", write_ids("ids", {1}), "--text", "a"}, {"--ids", "--text", "both"});
  expect_refused(words + Words{"--text", "\xff"}, {"--text", "UTF-8", "offset 0"});
}

TEST_F(LogitsCommand, RefusesAnOutputThatItCannotWriteOrThatItReads) {
  const std::string ids = write_ids("ids", {1, 5});
  const std::string then = write_ids("then", {1, 5});
  const std::string model = copy_of_stories("model");
  const Words words = {"logits", "--model", model, "--ids", ids, "--then-ids", then, "--output"};
  for (const std::string& output : {std::string("/dev/full"), path("no/such/folder"), folder().string(), ids + "/out",
                                    ids, then, model + "/model.safetensors", model + "/config.json"}) {
    expect_refused(words + Words{output}, {output});
  }
}

}  // namespace
}  // namespace memlane
