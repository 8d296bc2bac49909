#include "tests/apps/command_test.h"

namespace memlane {
namespace {

class BadModel : public CommandTest {
 protected:
  /// By every command that reads models.
  void expect_refused_everywhere(const std::string& model, const Words& named) {
    const std::string document = path("document.txt");
    if (!std::filesystem::exists(document)) write("document.txt", story(20, 1));
    expect_refused(Words{"generate", "--model", model, "--prompt", "a", "--max-tokens", "1"}, named);
    expect_refused(Words{"ingest", "--quiet", "--model", model, "--mem-layers", "2", "--memory", path("new"), document},
                   named);
    expect_refused(Words{"logits", "--model", model, "--text", "a", "--output", path("out")}, named);
  }

  /// A copy of the model with one key of its config changed.
  std::string with_config(const std::string& name, const std::string& key, const nlohmann::json& value) {
    std::string model = copy_of_stories(name);
    auto config = nlohmann::json::parse(read_text(model + "/config.json"));
    config[key] = value;
    write(name + "/config.json", config.dump());
    return model;
  }
};

TEST_F(BadModel, ThatIsMissingOrAFileIsNamed) {
  expect_refused_everywhere(path("none"), {path("none"), "folder of a model", "nothing"});
  expect_refused_everywhere(write("file", "a"), {path("file"), "folder of a model"});
  expect_refused_everywhere("", {"folder of a model"});
}

TEST_F(BadModel, WithoutAFileIsNamed) {
  for (const char* file : {"config.json", "model.safetensors", "tokenizer.model"}) {
    const std::string model = copy_of_stories(std::string("without-") + file);
    std::filesystem::remove(model + "/" + file);
    expect_refused_everywhere(model, {model, file});
  }
}

TEST_F(BadModel, OfPyTorchSaysHowToConvert) {
  const std::string model = copy_of_stories("model");
  std::filesystem::rename(model + "/model.safetensors", model + "/pytorch_model.bin");
  expect_refused_everywhere(model, {"pytorch_model.bin", "convert"});
}

TEST_F(BadModel, WithTruncatedOrForeignWeightsIsNamed) {
  const std::string model = copy_of_stories("model");
  const std::string weights = read_text(model + "/model.safetensors");
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{7}, std::size_t{1000}, weights.size() / 2, weights.size() - 1}) {
    write("model/model.safetensors", weights.substr(0, size));
    expect_refused_everywhere(model, {model + "/model.safetensors", "again"});
  }
  write("model/model.safetensors", std::string(5000, 'x'));
  expect_refused_everywhere(model, {model + "/model.safetensors"});
}

TEST_F(BadModel, WithASpoiltTokenizerIsNamed) {
  const std::string model = copy_of_stories("model");
  write("model/tokenizer.model", "not a tokenizer");
  expect_refused_everywhere(model, {model + "/tokenizer.model"});
}

TEST_F(BadModel, WhoseConfigContradictsItsTensorsNamesTheTensor) {
  expect_refused_everywhere(with_config("wide", "intermediate_size", 176),
                            {"model.layers.0.mlp", "[176, 64]", "[172, 64]"});
  expect_refused_everywhere(with_config("deep", "num_hidden_layers", 6), {"model.layers.5."});
  expect_refused_everywhere(with_config("heads", "num_key_value_heads", 8),
                            {"model.layers.0.self_attn.k_proj.weight", "[64, 64]"});
  expect_refused_everywhere(with_config("few", "vocab_size", 500), {"500"});
}

TEST_F(BadModel, WithUnsupportedSettingsNamesTheKey) {
  expect_refused_everywhere(with_config("type", "model_type", "mistral"), {"config.json", "model_type", "mistral"});
  expect_refused_everywhere(with_config("scaled", "rope_scaling", {{"rope_type", "spiral"}, {"factor", 4.0}}),
                            {"config.json", "rope_scaling", "spiral"});
  expect_refused_everywhere(with_config("act", "hidden_act", "gelu"), {"config.json", "hidden_act", "gelu"});
  expect_refused_everywhere(with_config("bias", "attention_bias", true), {"config.json", "attention_bias"});
  expect_refused_everywhere(with_config("text", "hidden_size", "64"), {"config.json", "hidden_size"});
  expect_refused_everywhere(with_config("null", "num_attention_heads", 0), {"config.json", "num_attention_heads"});
  const std::string broken = copy_of_stories("broken");
  write("broken/config.json", "{\"model_type\": ");
  expect_refused_everywhere(broken, {"broken/config.json"});
}

TEST_F(BadModel, ThatCannotFitInMemoryIsRefusedBeforeWork) {
  const std::string model = with_config("huge", "num_hidden_layers", 4096);
  auto config = nlohmann::json::parse(read_text(model + "/config.json"));
  config["hidden_size"] = 1 << 20;
  config["intermediate_size"] = 1 << 22;
  config["head_dim"] = 8;
  write("huge/config.json", config.dump());
  const Words named = {"of memory", "are free"};
  expect_refused(Words{"generate", "--model", model, "--prompt", "a"}, named);
  expect_refused(Words{"logits", "--model", model, "--text", "a", "--output", path("out")}, named);
  const std::string document = write("a.txt", story(20, 1));
  expect_refused(Words{"ingest", "--quiet", "--model", model, "--memory", path("m"), "--mem-layers", "2", document},
                 named);
}

}  // namespace
}  // namespace memlane
