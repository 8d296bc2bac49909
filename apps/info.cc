#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/memory_budget.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "memory/compaction.h"
#include "memory/memory_file.h"
#include "runtime/model.h"
#include "runtime/resources.h"
#include "runtime/session.h"
#include "runtime/stored_memory.h"
#include "runtime/tokenizer.h"

namespace memlane {

namespace {

struct InfoOptions {
  std::string path;
  bool json = false;
};

nlohmann::json describe_model(const std::string& path) {
  const ModelConfig config = read_model_config(path);
  const Checkpoint checkpoint = Checkpoint::open(path);
  const MemorySettings settings = resolve_memory_settings(config, {});
  const EntryShape shape = entry_shape(config, settings);
  std::size_t parameters = 0;
  for (const Tensor* tensor : checkpoint.tensors()) parameters += tensor->bytes.size() / size_of(tensor->dtype);
  const DType compute = default_compute(checkpoint);
  nlohmann::json info = {{"kind", "model"},
                         {"path", path},
                         {"model_type", config.model_type},
                         {"parameters", parameters},
                         {"layers", config.num_layers},
                         {"hidden_size", config.hidden_size},
                         {"intermediate_size", config.intermediate_size},
                         {"heads", config.num_heads},
                         {"kv_heads", config.num_kv_heads},
                         {"head_dim", config.head_dim},
                         {"vocab_size", config.vocab_size},
                         {"rope_theta", config.rope.theta},
                         {"rope", to_text(config.rope)},
                         {"memory_rope", to_text(config.memory_rope)},
                         {"mem_layers", settings.mem_layers},
                         {"mem_dtype", name_of(settings.mem_dtype)},
                         {"window", settings.window},
                         {"last_context_length", settings.last_context_length},
                         {"compute", name_of(compute)},
                         {"weight_bytes", weight_bytes(config, compute)},
                         {"memory_bytes_per_token", shape.segment_bytes(settings.window) / settings.window}};
  if (std::filesystem::exists(std::filesystem::path(path) / "tokenizer.model")) {
    info["tokenizer_pieces"] = Tokenizer::open(path).size();
  }
  return info;
}

nlohmann::json describe_memory(const std::string& path) {
  const MemoryFile file = MemoryFile::open(path);
  const MemoryFileHeader& header = file.header();
  const auto made_with = header.settings.find("weights");
  nlohmann::json documents = nlohmann::json::array();
  std::size_t entries = 0;
  std::size_t dropped = 0;
  for (const StoredDocument& document : file.documents()) {
    dropped += document.dropped ? 1 : 0;
    if (document.dropped) continue;
    entries += document.entries();
    documents.push_back({{"id", document.info.id},
                         {"name", document.info.name},
                         {"text_bytes", document.info.text_bytes},
                         {"tokens", document.info.tokens},
                         {"tokens_in_memory", document.entries()},
                         {"windows", document.windows.size()},
                         {"complete", document.complete},
                         {"indexed_entries", document.indexes.entries_covered}});
  }
  const StoredJointIndex& joint = file.joint_index();
  return {{"kind", "memory"},
          {"path", path},
          {"version", file.version()},
          {"bytes", file.bytes()},
          {"compacted_bytes", compacted_bytes(file)},
          {"dropped_documents", dropped},
          {"uncommitted_tail", file.has_uncommitted_tail()},
          {"model_name", header.model_name},
          {"model_fingerprint", header.model_fingerprint},
          {"tokenizer_fingerprint", header.tokenizer_fingerprint},
          {"mem_layers", header.shape.layers},
          {"kv_heads", header.shape.kv_heads},
          {"head_dim", header.shape.head_dim},
          {"mem_dtype", name_of(header.shape.dtype)},
          {"window", header.window},
          {"compute", header.compute},
          {"weights", made_with == header.settings.end() ? header.compute : made_with->second},
          {"lookup", header.lookup},
          {"top_k", header.top_k},
          {"evict", eviction_setting(header)},
          {"entries", entries},
          {"joint_documents", joint.documents.size()},
          {"joint_index_bytes", joint.file_bytes},
          {"documents", documents}};
}

/// One "key: value" line each; what is in bytes is said in bytes that people read.
std::string lines_of(const nlohmann::json& info, const std::string& indent) {
  std::string lines;
  for (const auto& [key, value] : info.items()) {
    const bool in_bytes = key == "bytes" || key.ends_with("_bytes");
    if (value.is_array() && !value.empty() && value.front().is_object()) {
      for (const auto& each : value) {
        lines += fmt::format("{}document {}\n", indent, each.at("id").get<int>()) + lines_of(each, indent + "  ");
      }
    } else if (in_bytes) {
      lines += fmt::format("{}{}: {}\n", indent, key, bytes_text(value.get<std::uint64_t>()));
    } else {
      lines += fmt::format("{}{}: {}\n", indent, key, value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
  return lines;
}

int show_info(const InfoOptions& options) {
  if (options.path.empty()) input_error("info: expected the path of a model folder or a memory file, found none");
  std::error_code ignored;
  if (!std::filesystem::exists(options.path, ignored)) {
    input_error("{}: expected a model folder or a memory file, found nothing; check the path", options.path);
  }
  const nlohmann::json info = std::filesystem::is_directory(options.path, ignored) ? describe_model(options.path)
                                                                                   : describe_memory(options.path);
  if (options.json) {
    print_json(info);
  } else {
    print_text(lines_of(info, ""));
  }
  return 0;
}

}  // namespace

Subcommand add_info(CLI::App& program) {
  CLI::App* app = program.add_subcommand("info", "Say what a model folder or a memory file holds");
  const auto options = std::make_shared<InfoOptions>();
  app->add_option("path,--model,--memory", options->path, "A model folder or a memory file");
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return show_info(*options); }};
}

}  // namespace memlane
