#include "runtime/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/runtime/test_files.h"
#include "tests/temporary_folder.h"

namespace memlane {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

/// The bytes of a safetensors file.
std::string safetensors(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string text(reinterpret_cast<const char*>(&length), sizeof length);
  text += header;
  for (std::size_t i = 0; i < data_bytes; ++i) text += static_cast<char>(i);
  return text;
}

json entry(const char* dtype, const json& shape, std::size_t begin, std::size_t end) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, end}}};
}

class CheckpointTest : public testing::Test {
 protected:
  fs::path file(const std::string& name) const { return folder_.path() / name; }

  std::string open_error() const {
    return input_error_of([&] { Checkpoint::open(folder_.path()); });
  }

  /// Of opening model.safetensors with this header and as many bytes of data.
  std::string error_with(const json& header, std::size_t data_bytes) const {
    write_text(file("model.safetensors"), safetensors(header.dump(), data_bytes));
    return open_error();
  }

  void write_shard(const std::string& shard, const std::vector<std::string>& names) const {
    const std::vector<float> values = {1, 2};
    std::vector<OutputTensor> tensors;
    for (const std::string& name : names) tensors.push_back({name, {2}, values});
    write_safetensors(file(shard), tensors);
  }

  void write_index(const json& weight_map) const {
    write_text(file("model.safetensors.index.json"), json{{"weight_map", weight_map}}.dump());
  }

  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path())) names.push_back(entry.path().filename());
    return names;
  }

  TemporaryFolder folder_;
};

TEST_F(CheckpointTest, ReadsTheModelsOfTheRepository) {
  const Checkpoint stories = Checkpoint::open(source_dir() / "models/stories260K");
  EXPECT_EQ(stories.tensors().size(), 47U);
  EXPECT_TRUE(stories.contains("model.norm.weight"));
  EXPECT_FALSE(stories.contains("lm_head.weight"));
  const Tensor& k = stories.tensor("model.layers.0.self_attn.k_proj.weight", std::vector<std::size_t>{32, 64});
  EXPECT_EQ(k.dtype, DType::f32);
  EXPECT_EQ(k.bytes.size(), 32 * 64 * sizeof(float));
  EXPECT_EQ(k.file, source_dir() / "models/stories260K/model.safetensors");
}

TEST_F(CheckpointTest, ReadsFloatsAndIntegersOfRecordedData) {
  const SafetensorsFile file(source_dir() / "tests/golden/longllama-f32/expected_calls.safetensors");
  const std::vector<std::size_t>& shape = file.tensor("call_0.logits").shape;
  ASSERT_EQ(shape.size(), 2U);
  EXPECT_EQ(shape[1], 128U);
  EXPECT_EQ(file.floats("call_0.logits").size(), shape[0] * shape[1]);
  for (const std::int32_t id : file.integers("call_0.input_ids")) EXPECT_TRUE(id >= 0 && id < 128);
  EXPECT_THAT(input_error_of([&] { file.floats("call_0.input_ids"); }), HasSubstr("expected dtype F32, found \"I32\""));
  EXPECT_THAT(input_error_of([&] { file.integers("none"); }), HasSubstr("expected a tensor \"none\""));
}

TEST_F(CheckpointTest, ReadsBackWhatItWrites) {
  const std::vector<float> floats = {1.5F, -2.0F, 0.0F, 3.0F, 4.0F, 5.0F};
  const std::vector<std::int32_t> integers = {-7, 8, 9};
  const std::vector<OutputTensor> tensors = {
      {"logits", {2, 3}, floats}, {"ids", {3}, integers}, {"none", {0, 4}, std::span<const float>()}};
  write_safetensors(file("out.safetensors"), tensors);
  const SafetensorsFile read(file("out.safetensors"));
  EXPECT_EQ(read.floats("logits"), floats);
  EXPECT_EQ(read.integers("ids"), integers);
  EXPECT_THAT(read.tensor("logits").shape, ElementsAre(2, 3));
  EXPECT_TRUE(read.floats("none").empty());
  EXPECT_EQ(read.tensors().size(), 3U);
  EXPECT_THAT(files(), ElementsAre("out.safetensors"));
}

TEST_F(CheckpointTest, ReadsShardsThroughTheirIndex) {
  write_shard("model-1.safetensors", {"a", "b"});
  write_shard("model-2.safetensors", {"c", "unlisted"});
  write_index({{"a", "model-1.safetensors"}, {"b", "model-1.safetensors"}, {"c", "model-2.safetensors"}});
  const Checkpoint opened = Checkpoint::open(folder_.path());
  EXPECT_EQ(opened.tensors().size(), 3U);
  EXPECT_FALSE(opened.contains("unlisted"));
  EXPECT_EQ(opened.tensor("c", std::vector<std::size_t>{2}).file.filename(), "model-2.safetensors");
}

TEST_F(CheckpointTest, RefusesAnIndexThatDoesNotFitItsShards) {
  write_shard("model-1.safetensors", {"a"});
  write_index({{"a", "model-1.safetensors"}, {"b", "model-1.safetensors"}});
  EXPECT_THAT(open_error(), AllOf(HasSubstr("tensor \"b\""), HasSubstr("shard \"model-1.safetensors\"")));
  write_index({{"a", "model-2.safetensors"}});
  EXPECT_THAT(open_error(), HasSubstr("shard \"model-2.safetensors\" is missing"));
  write_index({{"a", 3}});
  EXPECT_THAT(open_error(), HasSubstr("expected a file name for \"a\", found 3"));
  write_index(json::object());
  EXPECT_THAT(open_error(), HasSubstr("expected weight_map"));
  write_text(file("model.safetensors.index.json"), "{}");
  EXPECT_THAT(open_error(), HasSubstr("expected weight_map"));
}

TEST_F(CheckpointTest, ReadsNoShardOutsideItsFolder) {
  const TemporaryFolder elsewhere;
  write_safetensors(elsewhere.path() / "x.safetensors", {});
  const std::string outside = (elsewhere.path() / "x.safetensors").string();
  fs::create_symlink(outside, file("link.safetensors"));
  fs::create_directory(file("sub"));
  for (const std::string& name : {outside, std::string("../x.safetensors"), std::string("sub/x.safetensors"),
                                  std::string(".."), std::string("."), std::string(), std::string("a\0b", 3)}) {
    write_index({{"a", name}});
    EXPECT_THAT(open_error(), HasSubstr("expected the plain names of files beside it")) << name;
  }
  write_index({{"a", "link.safetensors"}});
  EXPECT_THAT(open_error(), HasSubstr("is a link out of the model's folder"));
}

TEST_F(CheckpointTest, FollowsTheLinksOfHuggingFacesCache) {
  fs::create_directories(file("blobs"));
  fs::create_directories(file("snapshots/1234"));
  write_shard("blobs/5678", {"a"});
  fs::create_symlink("../../blobs/5678", file("snapshots/1234/model-1.safetensors"));
  write_text(file("snapshots/1234/model.safetensors.index.json"), R"({"weight_map": {"a": "model-1.safetensors"}})");
  EXPECT_TRUE(Checkpoint::open(file("snapshots/1234")).contains("a"));
}

TEST_F(CheckpointTest, SaysHowToConvertAFolderOfPickles) {
  EXPECT_THAT(open_error(),
              HasSubstr("expected model.safetensors or model.safetensors.index.json in it, found neither"));
  write_text(file("pytorch_model.bin"), "x");
  EXPECT_THAT(open_error(), HasSubstr("run scripts/convert-pytorch-checkpoint " + folder_.path().string()));
  EXPECT_THAT(input_error_of([&] { Checkpoint::open(file("none")); }), HasSubstr("expected the folder of a model"));
  EXPECT_THAT(input_error_of([&] { Checkpoint::open(file("pytorch_model.bin")); }), HasSubstr("found no folder"));
}

TEST_F(CheckpointTest, NamesTensorExpectedAndFoundWhenConfigAndTensorsDisagree) {
  write_text(file("model.safetensors"), safetensors(json{{"w", entry("F16", {2, 3}, 0, 12)},
                                                         {"ids", entry("I64", {1}, 12, 20)},
                                                         {"__metadata__", {{"format", "pt"}}}}
                                                        .dump(),
                                                    20));
  const Checkpoint opened = Checkpoint::open(folder_.path());
  EXPECT_EQ(opened.tensor("w", std::vector<std::size_t>{2, 3}).dtype, DType::f16);
  EXPECT_EQ(opened.tensors().size(), 1U);
  const auto error_of = [&](const char* name, const std::vector<std::size_t>& shape) {
    return input_error_of([&] { opened.tensor(name, shape); });
  };
  EXPECT_THAT(error_of("w", {3, 2}),
              HasSubstr("tensor \"w\": expected shape [3, 2] as config.json says, found [2, 3]"));
  EXPECT_THAT(error_of("w", {6}), HasSubstr("expected shape [6]"));
  EXPECT_THAT(error_of("ids", {1}), HasSubstr("tensor \"ids\": expected dtype F32, F16 or BF16, found \"I64\""));
  EXPECT_THAT(error_of("v", {1}), HasSubstr("expected a tensor \"v\" of shape [1], found none"));
}

TEST_F(CheckpointTest, AlignsTensorsOfFilesThatDoNot) {
  std::string header = json{{"a", entry("F32", {2}, 0, 8)}}.dump();
  while (header.size() % 4 != 1) header += ' ';
  write_text(file("model.safetensors"), safetensors(header, 8));
  Checkpoint opened = Checkpoint::open(folder_.path());
  const Tensor& tensor = opened.tensor("a", std::vector<std::size_t>{2});
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % 4, 0U);
  EXPECT_EQ(std::to_integer<int>(tensor.bytes[7]), 7);
  const Checkpoint moved = std::move(opened);
  EXPECT_EQ(&moved.tensor("a", std::vector<std::size_t>{2}), &tensor);
}

TEST_F(CheckpointTest, RefusesATensorWhoseBytesRunPastTheFile) {
  EXPECT_THAT(error_with({{"w", entry("F32", {4}, 0, 16)}}, 12),
              AllOf(HasSubstr("tensor \"w\""), HasSubstr("12 bytes")));
  EXPECT_THAT(error_with({{"w", entry("F32", {4}, 8, 4)}}, 12), HasSubstr("data_offsets [begin, end] in order"));
}

TEST_F(CheckpointTest, RefusesSizesThatDoNotFitTheShape) {
  EXPECT_THAT(error_with({{"w", entry("F32", {4}, 0, 12)}}, 12), HasSubstr("expected 16 bytes for shape [4]"));
  const std::uint64_t huge = std::uint64_t{1} << 62;
  EXPECT_THAT(error_with({{"w", entry("F32", {huge, huge}, 0, 12)}}, 12), HasSubstr("a size that fits 64 bits"));
  EXPECT_EQ(error_with({{"w", entry("F32", {huge, huge, 0}, 0, 0)}}, 0), "");
  EXPECT_THAT(error_with({{"w", entry("F32", {-4}, 0, 16)}}, 16), HasSubstr("not negative, found -4"));
  EXPECT_THAT(error_with({{"w", entry("F32", {4.0}, 0, 16)}}, 16), HasSubstr("not negative, found 4.0"));
  EXPECT_THAT(error_with({{"w", entry("F32", 4, 0, 16)}}, 16), HasSubstr("expected shape to be a list"));
  EXPECT_THAT(error_with({{"w", entry("F32", json::array_t(100, 1), 0, 4)}}, 4), HasSubstr("at most 16 sizes"));
}

TEST_F(CheckpointTest, RefusesTensorsThatOverlapAndBytesOfNone) {
  EXPECT_THAT(error_with({{"a", entry("F32", {2}, 0, 8)}, {"b", entry("F32", {2}, 4, 12)}}, 12),
              HasSubstr("tensor \"b\""));
  EXPECT_THAT(error_with({{"a", entry("F32", {1}, 0, 4)}, {"b", entry("F32", {1}, 8, 12)}}, 12),
              HasSubstr("tensor \"b\""));
  EXPECT_THAT(error_with({{"a", entry("F32", {2}, 0, 8)}}, 12),
              HasSubstr("expected 8 bytes of data as its header says, found 12"));
}

TEST_F(CheckpointTest, RefusesHeadersThatAreNone) {
  EXPECT_THAT(error_with({{"w", 3}}, 0), HasSubstr("expected an object with dtype, shape and data_offsets, found 3"));
  EXPECT_THAT(error_with({{"w", {{"dtype", "F32"}}}}, 0), HasSubstr("expected a key shape, found none"));
  EXPECT_THAT(error_with({{"w", entry("F32", {}, 0, 0)}, {"v", {{"dtype", 4}}}}, 0), HasSubstr("name of a type"));
  EXPECT_THAT(error_with(json::array(), 0), HasSubstr("expected a JSON object"));
  write_text(file("model.safetensors"), safetensors(R"({"a": {}, "a": {}})", 0));
  EXPECT_THAT(open_error(), HasSubstr("\"a\" appears twice"));
  write_text(file("model.safetensors"), "short");
  EXPECT_THAT(open_error(), HasSubstr("found only 5 bytes"));
  write_text(file("model.safetensors"), "");
  EXPECT_THAT(open_error(), HasSubstr("found only 0 bytes"));
  write_text(file("model.safetensors"), std::string(64, '\xff'));
  EXPECT_THAT(open_error(), HasSubstr("expected a safetensors header of at most 56 bytes"));
  write_text(file("model.safetensors"), safetensors(R"({"a)", 0));
  EXPECT_THAT(open_error(), HasSubstr("its end too soon"));
}

TEST_F(CheckpointTest, SurvivesAnyDamagedByteOfItsHeaderAndAnyTruncation) {
  const std::string model = read_text(source_dir() / "models/stories260K/model.safetensors");
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, model.data(), sizeof header_bytes);
  std::mt19937 random(23);
  for (int i = 0; i < 400; ++i) {
    std::string damaged = model;
    if (i % 10 == 0) {
      damaged.resize(random() % model.size());
    } else {
      const std::size_t end = i % 10 == 1 ? 8 : 8 + header_bytes;
      damaged[random() % end] ^= static_cast<char>(1U << random() % 8);
    }
    write_text(file("model.safetensors"), damaged);
    input_error_of([&] {
      const Checkpoint opened = Checkpoint::open(folder_.path());
      for (const Tensor* tensor : opened.tensors()) opened.tensor(tensor->name, tensor->shape);
    });
  }
}

TEST_F(CheckpointTest, LeavesNothingBehindWhenItCannotWrite) {
  const std::vector<float> values(1 << 16, 1.0F);
  const std::vector<OutputTensor> tensors = {{"w", {values.size()}, values}};
  write_text(file("out"), "kept");

  struct ::rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const ::rlimit small = {1 << 12, before.rlim_max};  // as a full disk: some bytes are written, then no more
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string error = input_error_of([&] { write_safetensors(file("out"), tensors); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);

  EXPECT_THAT(error, HasSubstr("cannot write it: File too large"));
  EXPECT_EQ(read_text(file("out")), "kept");
  EXPECT_THAT(files(), ElementsAre("out"));
  EXPECT_THAT(input_error_of([&] { write_safetensors(file("none/out"), tensors); }), HasSubstr("No such file"));
  EXPECT_THAT(input_error_of([&] { write_safetensors(folder_.path(), tensors); }), HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace memlane
