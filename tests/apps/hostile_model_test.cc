// Model folders made to read what is elsewhere, or to fill the memory.

#include <sys/stat.h>

#include <cstring>

#include "kernels/stopwatch.h"
#include "tests/apps/command_test.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kSecret = "key-5d2f";

class HostileModel : public CommandTest {
 protected:
  /// By every command that reads models, with little memory, soon, and without a word of what is elsewhere.
  void expect_refused_quickly(const std::string& model, const Words& named) const {
    const std::string document = path("document.txt");
    if (!std::filesystem::exists(document)) write("document.txt", story(20, 1));
    const Words ingest = {"ingest",       "--quiet", "--threads", "2",         "--model", model,
                          "--mem-layers", "1",       "--memory",  path("new"), document};
    for (const Words& words : {Words{"generate", "--threads", "2", "--model", model, "--prompt", "a"}, ingest}) {
      const Stopwatch watch;
      const Invocation invocation = limited(words);
      expect_refused(invocation, named);
      EXPECT_THAT(run(invocation).err, Not(HasSubstr(kSecret)));
      EXPECT_LT(watch.seconds(), kSanitized ? 120 : 30);
    }
  }

  static Invocation limited(const Words& words) {
    Invocation invocation{.arguments = words};
    // Sanitizers reserve more addresses than any limit on them allows.
    if (!kSanitized) invocation.limits = {{RLIMIT_AS, ::rlim_t{1} << 30}};
    return invocation;
  }

  /// A copy of the model whose weights are to be put there as shards.
  std::string sharded(const std::string& name) const {
    std::string model = copy_of_stories(name);
    std::filesystem::rename(model + "/model.safetensors", model + "/a.safetensors");
    return model;
  }
  std::string with_index(const std::string& name, const std::string& shard) const {
    std::string model = sharded(name);
    write(name + "/" + kIndex, nlohmann::json{{"weight_map", {{"model.norm.weight", shard}}}}.dump());
    return model;
  }

  std::string with_config(const std::string& name, const nlohmann::json& changes) const {
    std::string model = copy_of_stories(name);
    auto config = nlohmann::json::parse(read_text(model + "/config.json"));
    config.update(changes);
    write(name + "/config.json", config.dump());
    return model;
  }

  static std::string safetensors(std::string_view header, std::size_t data = 0) {
    const std::uint64_t length = header.size();
    std::string file(sizeof length, '\0');
    std::memcpy(file.data(), &length, sizeof length);
    return file + std::string(header) + std::string(data, '\0');
  }
};

TEST_F(HostileModel, LinksOutOfTheFolderAreRefusedUnread) {
  write(kSecret, kSecret);
  for (const std::string file : {"config.json", "tokenizer.model", "model.safetensors"}) {
    const std::string model = copy_of_stories("links-" + file);
    std::filesystem::remove(model + "/" + file);
    std::filesystem::create_symlink("../" + std::string(kSecret), model + "/" + file);
    const std::string named = model + "/" + file + ": is a link out of the model's folder";
    expect_refused(limited({"generate", "--model", model, "--prompt", "a"}), {named});
    expect_refused(limited({"info", model}), {named});
    std::filesystem::remove(model + "/" + file);
    std::filesystem::create_symlink("/dev/zero", model + "/" + file);
    expect_refused(limited({"info", model}), {named});
  }
  const std::string model = sharded("links-index");
  std::filesystem::create_symlink("../" + std::string(kSecret), model + "/" + kIndex);
  expect_refused_quickly(model, {"is a link out of the model's folder"});
}

TEST_F(HostileModel, LinksWithinTheFolderAndToTheFolderAreFollowed) {
  const std::string model = copy_of_stories("model");
  std::filesystem::rename(model + "/config.json", model + "/other.json");
  std::filesystem::create_symlink("other.json", model + "/config.json");
  std::filesystem::create_directory_symlink(model, path("link"));
  EXPECT_EQ(run({"info", path("link")}).exit_code, 0);
}

TEST_F(HostileModel, AnIndexThatNamesFilesElsewhereIsRefused) {
  std::filesystem::copy(stories() + "/model.safetensors", path("outside.safetensors"));
  int count = 0;
  for (const std::string& shard : {std::string("../outside.safetensors"), path("outside.safetensors"), std::string("."),
                                   std::string(".."), std::string(), std::string("a/../a.safetensors"),
                                   std::string("./a.safetensors"), std::string("a.safetensors\0b", 15)}) {
    expect_refused_quickly(with_index("model-" + std::to_string(count++), shard), {kIndex, "plain names"});
  }
}

TEST_F(HostileModel, PipesAreNotWaitedFor) {
  for (const std::string file : {"config.json", "tokenizer.model", "model.safetensors"}) {
    const std::string model = copy_of_stories("pipe-" + file);
    std::filesystem::remove(model + "/" + file);
    ASSERT_EQ(::mkfifo((model + "/" + file).c_str(), 0600), 0);
    const Outcome outcome = run(limited({"info", model}));
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(file + ": expected the"));
  }
}

TEST_F(HostileModel, HeadersThatPromiseTooMuchAreRefused) {
  const std::string model = copy_of_stories("model");
  const auto refuse = [&](const std::string& weights, const Words& named) {
    write("model/model.safetensors", weights);
    expect_refused_quickly(model, named);
  };
  refuse(std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8) + std::string(100, ' '), {"header of at most 100 bytes"});
  refuse(safetensors(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})"),
         {"a size that fits 64 bits"});
  refuse(safetensors(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}})", 4),
         {"within the 4 bytes"});
  refuse(safetensors(R"({"a":)" + std::string(100'000, '[')), {"nested deeper"});
  std::string values = R"({"a":[0)";
  for (int i = 0; i < 2'000'000; ++i) values += ",0";
  refuse(safetensors(values + "]}"), {"at most 1048576 keys and values"});
  // A file with a hole, of which nothing is on the disk.
  write("model/model.safetensors",
        safetensors(R"({"a":{"dtype":"F32","shape":[68719476736],"data_offsets":[0,274877906944]}})"));
  std::error_code no_such_files;
  std::filesystem::resize_file(model + "/model.safetensors",
                               std::filesystem::file_size(model + "/model.safetensors") + (std::uintmax_t{1} << 38),
                               no_such_files);
  const Outcome outcome = run(limited({"info", model}));  // without a limit it can be mapped: nothing of it is read
  EXPECT_TRUE(outcome.exit_code == 2 || outcome.exit_code == 0) << outcome.err;
}

TEST_F(HostileModel, OneFileUnderManyNamesIsRefused) {
  const std::string model = sharded("many");
  nlohmann::json map;
  for (int i = 0; i < 5000; ++i) map[fmt::format("t{}", i)] = fmt::format("s{}", i);
  write("many/" + std::string(kIndex), nlohmann::json{{"weight_map", map}}.dump());
  expect_refused_quickly(model, {kIndex, "at most 4096 shards, found 5000"});

  if (kSanitized) return;  // the same in little is slow enough
  std::string header = "{";
  for (int i = 0; i < 40'000; ++i) {
    header += (i == 0 ? "\"" : ",\"") + std::to_string(i) + R"(":{"dtype":"I8","shape":[0],"data_offsets":[0,0]})";
  }
  write("many/s0", safetensors(header + "}"));
  map = nlohmann::json::object();
  for (int i = 0; i < 100; ++i) {
    if (i > 0) std::filesystem::create_symlink("s0", fmt::format("{}/s{}", model, i));
    map[std::to_string(i)] = fmt::format("s{}", i);
  }
  write("many/" + std::string(kIndex), nlohmann::json{{"weight_map", map}}.dump());
  expect_refused(limited({"info", model}), {kIndex, "at most 262144 tensors"});
}

TEST_F(HostileModel, LargeNumbersInAConfigAreRefused) {
  const std::size_t most = std::size_t{1} << 30;
  expect_refused_quickly(with_config("row", {{"num_attention_heads", 16384}, {"head_dim", 16384}}),
                         {"config.json", "head_dim", "4194304 numbers in all heads"});
  expect_refused_quickly(with_config("window", {{"num_hidden_layers", 4096},
                                                {"head_dim", 16384},
                                                {"num_attention_heads", 256},
                                                {"num_key_value_heads", 256},
                                                {"model_type", "longllama"},
                                                {"max_position_embeddings", most}}),
                         {"a window of 1073741824 tokens"});
  // Wide, but no more than the limits say: the plan of ingest must not need more than the model.
  expect_refused_quickly(with_config("wide", {{"num_attention_heads", 16384},
                                              {"num_key_value_heads", 1},
                                              {"head_dim", 256},
                                              {"hidden_size", 2},
                                              {"num_hidden_layers", 2}}),
                         {""});
  expect_refused_quickly(with_config("long", {{"model_type", "longllama"}, {"max_position_embeddings", most}}),
                         {"memory", "are free"});
  std::string nested(50'000, '[');
  const std::string deep = copy_of_stories("deep");
  write("deep/config.json", R"({"model_type":)" + nested);
  expect_refused_quickly(deep, {"config.json", "nested deeper"});
  write("deep/config.json", std::string(17 << 20, ' '));
  expect_refused_quickly(deep, {"config.json", "at most 16777216 bytes"});
}

TEST_F(HostileModel, LargeTokenizersAreRefused) {
  const std::string model = copy_of_stories("model");
  std::filesystem::resize_file(model + "/tokenizer.model", std::uintmax_t{65} << 20);
  expect_refused_quickly(model, {"tokenizer.model", "at most 67108864 bytes"});
  std::string pieces;
  for (int i = 0; i < 1'100'000; ++i)
    pieces += std::string(
        "\x0a\x03\x0a\x01"
        "a",
        5);
  write("model/tokenizer.model", pieces);
  expect_refused_quickly(model, {"tokenizer.model", "damaged"});
}

}  // namespace
}  // namespace memlane
