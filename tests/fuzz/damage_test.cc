// 10,000 damaged files: flipped bits, overwritten bytes, cut ends.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "kernels/exec.h"
#include "runtime/model.h"
#include "runtime/stored_memory.h"
#include "runtime/tokenizer.h"
#include "tests/fuzz/targets.h"
#include "tests/memory/memory_file_fixture.h"
#include "tests/runtime/test_files.h"
#include "tests/sanitized.h"

namespace memlane {
namespace {

/// Of each kind of file; 10,000 in all.
constexpr std::size_t kDamages = kSanitized ? 300 : 2500;

/// Spoils files, always in the same way.
class Vandal {
 public:
  explicit Vandal(unsigned seed) : random_(seed) {}

  /// Other bytes than the good ones: one flipped bit, up to eight bytes overwritten, or a cut end. Half of the changes
  /// lie in the first `front` bytes, where the file says what is in it.
  std::string spoil(const std::string& good, std::size_t front) {
    std::string bad = good;
    while (bad == good) {
      const std::size_t kind = random_() % 4;
      const std::size_t at = random_() % (random_() % 2 == 0 ? std::min(front, good.size()) : good.size());
      if (kind == 0) {
        bad.resize(at);
      } else if (kind == 1) {
        for (std::size_t i = at; i < std::min(bad.size(), at + 1 + random_() % 8); ++i) {
          bad[i] = static_cast<char>(random_());
        }
      } else {
        bad[at] = static_cast<char>(bad[at] ^ (1 << random_() % 8));
      }
    }
    return bad;
  }

 private:
  std::mt19937 random_;
};

/// Truncating a file makes some file systems wait for the disk; removing it does not.
void replace(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::remove(path);
  write_text(path, bytes);
}

fuzz::Input input_of(const std::string& bytes) {
  return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
}

class DamagedMemoryFile : public MemoryFileTest {};

TEST_F(DamagedMemoryFile, IsAlwaysDetected) {
  write_small_file(path());
  const std::string good = read_text(path());
  Vandal vandal(1);
  std::size_t detected = 0;
  for (std::size_t i = 0; i < kDamages; ++i) {
    replace(path(), vandal.spoil(good, 200));
    detected += fuzz::accepts([&] { MemoryFile::open(path()); }) ? 0U : 1U;
  }
  EXPECT_EQ(detected, kDamages);
}

TEST_F(DamagedMemoryFile, IsDetectedOrReadAsItWasWhereOnlySomeDocumentsAreVerified) {
  write_small_file(path());
  const std::string good = read_text(path());
  const std::string whole = contents(path());
  const std::string play = whole.substr(whole.find('\n'), whole.find("draft") - whole.find('\n'));
  Vandal vandal(5);
  std::size_t detected = 0;
  for (std::size_t i = 0; i < kDamages; ++i) {
    replace(path(), vandal.spoil(good, 200));
    const bool read = fuzz::accepts([&] {
      MemoryFile file = MemoryFile::open_heads(path());
      file.verify({{1}});
      file.verify_joint_index();
      ASSERT_THAT(contents(file), ::testing::HasSubstr(play)) << i;
    });
    detected += read ? 0U : 1U;
  }
  EXPECT_GT(detected, kDamages / 2);
  EXPECT_LT(detected, kDamages);
}

/// A small model in a folder, and the memory header of what it would ingest.
class DamagedModel : public ::testing::Test {
 protected:
  DamagedModel() {
    write_text(folder() / "config.json", kConfig);
    write_model();
    original_ = header();
  }

  static constexpr std::string_view kConfig =
      R"({"model_type": "longllama", "vocab_size": 24, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
  "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-05,
  "rope_theta": 10000.0, "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
  "mem_layers": [1], "mem_positionals": true, "mem_dtype": "bfloat16", "last_context_length": 32,
  "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": [2, 3], "attention_bias": false})";

  const std::filesystem::path& folder() const { return folder_.path(); }

  void write_model() const {
    std::mt19937 random(3);
    std::vector<std::vector<float>> values;
    std::vector<OutputTensor> tensors;
    values.reserve(100);
    const auto add = [&](std::string name, std::vector<std::size_t> shape) {
      std::size_t count = 1;
      for (const std::size_t extent : shape) count *= extent;
      auto& numbers = values.emplace_back(count);
      for (float& number : numbers) number = static_cast<float>(random() % 1000) / 1000 - 0.5F;
      tensors.push_back({std::move(name), std::move(shape), std::span<const float>(numbers)});
    };
    add("model.embed_tokens.weight", {24, 8});
    add("model.norm.weight", {8});
    for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
      for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) add(layer + norm + ".weight", {8});
      for (const char* name : {"q_proj", "o_proj"}) add(layer + "self_attn." + name + ".weight", {8, 8});
      for (const char* name : {"k_proj", "v_proj"}) add(layer + "self_attn." + name + ".weight", {4, 8});
      for (const char* name : {"gate_proj", "up_proj"}) add(layer + "mlp." + name + ".weight", {12, 8});
      add(layer + "mlp.down_proj.weight", {8, 12});
    }
    write_safetensors(folder() / "model.safetensors", tensors);
  }

  /// Loads the model, weights and all.
  Model model() { return load_model(exec_, folder(), DType::f32); }
  MemoryFileHeader header(const Model& model) const {
    return memory_header(model, "", resolve_memory_settings(model.config, {}), {});
  }
  MemoryFileHeader header() { return header(model()); }

  /// Everything that the maths of an entry depends on.
  static std::string weights_of(const Model& model) {
    std::string text;
    for (const Tensor* tensor : model.checkpoint.tensors()) {
      text += fmt::format("{} {} {} {}\n", tensor->name, name_of(tensor->dtype), fmt::join(tensor->shape, ","),
                          std::string_view(reinterpret_cast<const char*>(tensor->bytes.data()), tensor->bytes.size()));
    }
    return text;
  }
  static std::string maths_of(const ModelConfig& config) {
    const MemorySettings settings = resolve_memory_settings(config, {});
    return fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", config.model_type, config.vocab_size,
                       config.hidden_size, config.intermediate_size, config.num_layers, config.num_heads,
                       config.num_kv_heads, config.head_dim, config.rms_norm_eps, to_text(settings.rope),
                       to_text(settings.memory_rope), config.tie_word_embeddings, settings.mem_positionals,
                       settings.window, fmt::join(settings.mem_layers, ","), name_of(settings.mem_dtype));
  }

  /// Spoils a file of the folder again and again. what: what a model that is still read computes from; where it has
  /// changed, the memory of the good model must not be used.
  template <class What>
  void expect_no_harm(const char* name, std::size_t front, bool (*target)(fuzz::Input), const What& what) {
    const std::string good = read_text(folder() / name);
    const std::string meaning = what(model());
    Vandal vandal(2);
    std::size_t refused = 0;
    std::size_t same = 0;
    std::size_t other = 0;
    for (std::size_t i = 0; i < kDamages; ++i) {
      const std::string bad = vandal.spoil(good, front);
      ASSERT_NO_THROW(target(input_of(bad)));
      replace(folder() / name, bad);
      const bool read = fuzz::accepts([&] {
        const Model spoilt = model();
        const bool is_same = what(spoilt) == meaning;
        const std::string found = differences(original_, header(spoilt));
        EXPECT_EQ(is_same, found.empty()) << i << ": " << found;
        (is_same ? same : other) += 1;
      });
      refused += read ? 0U : 1U;
    }
    EXPECT_EQ(refused + same + other, kDamages);
    EXPECT_GT(refused, kDamages / 10);
    EXPECT_TRUE(kSanitized || same > 0);  // few changes mean nothing, and there are fewer of them
    EXPECT_GT(other, 0U);
    RecordProperty("refused", static_cast<int>(refused));
    RecordProperty("read_as_the_same", static_cast<int>(same));
    RecordProperty("read_as_another", static_cast<int>(other));
  }

  TemporaryFolder folder_;
  CpuExec exec_{std::size_t{1}};
  MemoryFileHeader original_;
};

TEST_F(DamagedModel, CheckpointIsRefusedOrReadAndNeverTakenForTheGoodOne) {
  expect_no_harm("model.safetensors", 2000, fuzz::checkpoint, weights_of);
}

TEST_F(DamagedModel, ConfigIsRefusedOrReadAndNeverTakenForTheGoodOne) {
  expect_no_harm("config.json", kConfig.size(), fuzz::config,
                 [](const Model& model) { return maths_of(model.config); });
}

TEST(DamagedTokenizer, IsRefusedOrReadAndNeverTakenForTheGoodOne) {
  const TemporaryFolder folder;
  const std::string good = read_text(source_dir() / "models" / "stories260K" / "tokenizer.model");
  const std::string fingerprint = Tokenizer::open(source_dir() / "models" / "stories260K").fingerprint();
  Vandal vandal(4);
  std::size_t refused = 0;
  std::size_t other = 0;
  for (std::size_t i = 0; i < kDamages; ++i) {
    const std::string bad = vandal.spoil(good, good.size());
    ASSERT_NO_THROW(fuzz::tokenizer(input_of(bad)));
    replace(folder.path() / "tokenizer.model", bad);
    const bool read = fuzz::accepts([&] { EXPECT_NE(Tokenizer::open(folder.path()).fingerprint(), fingerprint); });
    (read ? other : refused) += 1;
  }
  EXPECT_EQ(refused + other, kDamages);
  EXPECT_GT(refused, kDamages / 10);
  EXPECT_GT(other, 0U);
}

}  // namespace
}  // namespace memlane
