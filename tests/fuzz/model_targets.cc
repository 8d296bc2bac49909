#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "runtime/checkpoint.h"
#include "runtime/local_settings.h"
#include "runtime/model_config.h"
#include "runtime/rope_report.h"
#include "tests/fuzz/targets.h"

namespace memlane::fuzz {

namespace {

/// A safetensors file of a header and data.
std::vector<std::uint8_t> safetensors(std::string_view header, std::string_view data) {
  const std::uint64_t length = header.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  file += header;
  file += data;
  return {file.begin(), file.end()};
}

/// The header's length is filled in where an input begins with JSON (and ends it with a zero byte): a fuzzer would
/// have to change two places at once.
std::vector<std::uint8_t> safetensors_of(Input input) {
  const std::string_view all = text_of(input);
  if (!all.starts_with('{')) return {input.begin(), input.end()};
  const std::size_t end = std::min(all.find('\0'), all.size());
  return safetensors(all.substr(0, end), all.substr(std::min(end + 1, all.size())));
}

void use(const Checkpoint& checkpoint) {
  for (const Tensor* tensor : checkpoint.tensors()) {
    std::size_t numbers = 1;
    for (const std::size_t extent : tensor->shape) numbers *= extent;
    const Tensor& aligned = checkpoint.tensor(tensor->name, tensor->shape);
    MEMLANE_EXPECTS(aligned.bytes.size() == numbers * size_of(aligned.dtype));
    MEMLANE_EXPECTS(reinterpret_cast<std::uintptr_t>(aligned.bytes.data()) % size_of(aligned.dtype) == 0);
    read_all(aligned.bytes);
  }
}

/// The files of shards do not change.
void put_shards() {
  static const bool done = [] {
    std::filesystem::create_directory(folder() / "sharded");
    put("sharded/a.safetensors", safetensors(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                                             std::string_view("\0\0\0\0\0\0\0\0", 8)));
    put("sharded/b.safetensors",
        safetensors(R"({"y":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}})", std::string_view("\0\0", 2)));
    put("outside.safetensors", safetensors("{}", ""));
    std::filesystem::create_symlink("../outside.safetensors", folder() / "sharded" / "link.safetensors");
    return true;
  }();
  static_cast<void>(done);
}

void check(const ModelConfig& config) {
  MEMLANE_EXPECTS(config.vocab_size > 0 && config.hidden_size > 0 && config.intermediate_size > 0);
  MEMLANE_EXPECTS(config.num_layers > 0 && config.num_kv_heads > 0 && config.num_heads % config.num_kv_heads == 0);
  MEMLANE_EXPECTS(config.head_dim > 0 && config.head_dim % 2 == 0 && config.max_position_embeddings > 0);
  MEMLANE_EXPECTS(config.rms_norm_eps > 0 && std::isfinite(config.rms_norm_eps));
  MEMLANE_EXPECTS(config.bos_token_id >= -1 && config.bos_token_id < static_cast<int>(config.vocab_size));
  for (const int id : config.eos_token_ids) MEMLANE_EXPECTS(id >= 0 && id < static_cast<int>(config.vocab_size));
  MEMLANE_EXPECTS(std::is_sorted(config.mem_layers.begin(), config.mem_layers.end()));
}

void check(const RopeScaling& scaling, std::size_t head_dim, std::size_t length) {
  const RopeReport report = rope_report(scaling, {.head_dim = head_dim, .length = length});
  MEMLANE_EXPECTS(report.frequencies.inv_freq.size() == head_dim / 2 && report.pairs.size() == head_dim / 2);
  for (const double frequency : report.frequencies.inv_freq) MEMLANE_EXPECTS(std::isfinite(frequency));
  MEMLANE_EXPECTS(std::isfinite(report.frequencies.attention_factor));
}

void check(const ModelConfig& config, const MemoryOverrides& overrides) {
  accepts([&] {
    const MemorySettings settings = resolve_memory_settings(config, overrides);
    MEMLANE_EXPECTS(settings.window > 0 && settings.last_context_length > 0 &&
                    settings.last_context_length <= settings.window);
    MEMLANE_EXPECTS(settings.memory_window > 0 && settings.memory_window <= settings.window);
    MEMLANE_EXPECTS(settings.overlap < settings.window && settings.sinks <= settings.sliding_window);
    MEMLANE_EXPECTS(local_capacity(settings, LayerKind::plain) > 0);
    constexpr std::size_t kQuick = 512;  // pairs of larger heads take the fuzzer's time
    if (config.head_dim > kQuick) return;
    check(settings.rope, config.head_dim, settings.window);
    if (!settings.mem_layers.empty()) check(settings.memory_rope, config.head_dim, settings.memory_window);
  });
}

}  // namespace

bool checkpoint(Input input) {
  std::filesystem::create_directory(folder() / "single");
  const std::filesystem::path file = put("single/model.safetensors", safetensors_of(input));
  const bool read = accepts([&] { use(Checkpoint::open(folder() / "single")); });
  accepts([&] {
    const SafetensorsFile tensors(file);
    for (const auto& each : tensors.tensors()) {
      accepts([&] { tensors.floats(each.first); });
      accepts([&] { tensors.integers(each.first); });
    }
  });
  return read;
}

bool checkpoint_index(Input input) {
  put_shards();
  put("sharded/model.safetensors.index.json", input);
  return accepts([&] {
    const Checkpoint checkpoint = Checkpoint::open(folder() / "sharded");
    use(checkpoint);
    for (const Tensor* tensor : checkpoint.tensors())
      MEMLANE_EXPECTS(tensor->file.parent_path() == folder() / "sharded");
  });
}

bool config(Input input) {
  put("config.json", input);
  ModelConfig read;
  if (!accepts([&] { read = read_model_config(folder()); })) return false;
  check(read);
  check(read, {});
  check(read, {.mem_layers = std::vector<int>{0}});
  check(read, {.mem_layers = std::vector<int>{0}, .window = 4096, .rope = "yarn"});
  check(read, {.window = 100000, .rope = "dynamic-ntk:factor=2", .overlap = 7});
  check(read, {.mem_layers = std::vector<int>{0},
               .window = 64,
               .rope = "longrope",
               .memory_rope = "linear",
               .memory_window = 16,
               .sliding_window = 9,
               .sinks = 2});
  return true;
}

}  // namespace memlane::fuzz
