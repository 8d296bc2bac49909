#include "apps/model_options.h"

#include <fmt/ranges.h>

#include <charconv>
#include <system_error>

#include "apps/count_option.h"
#include "memory/list_settings.h"
#include "runtime/local_settings.h"
#include "runtime/resources.h"
#include "runtime/session.h"
#include "runtime/stored_memory.h"

namespace memlane {

namespace {

DType dtype_named(const std::string& flag, const std::string& name, bool with_f16) {
  if (name == "float32" || name == "f32") return DType::f32;
  if (name == "bfloat16" || name == "bf16") return DType::bf16;
  if (with_f16 && (name == "float16" || name == "f16")) return DType::f16;
  input_error("{} {}: expected float32, bfloat16{} (or f32, bf16{})", flag, name, with_f16 ? ", float16" : "",
              with_f16 ? ", f16" : "");
}

WeightFormat weights_named(const std::string& name) {
  for (const WeightFormat format : {WeightFormat::f32, WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    if (name == name_of(format)) return format;
  }
  input_error("--weights {}: expected float32, bfloat16, int8 or int4", name);
}

std::vector<int> parse_layers(const std::string& text) {
  std::vector<int> layers;
  if (text == "none") return layers;
  for (const char *at = text.data(), *const end = at + text.size();; ++at) {
    int layer = 0;
    const auto [stop, error] = std::from_chars(at, end, layer);
    if (error != std::errc() || layer < 0 || (stop != end && *stop != ',')) {
      input_error("--mem-layers {}: expected layer numbers from 0 separated by commas, such as 2,3, or none", text);
    }
    layers.push_back(layer);
    at = stop;
    if (at == end) return layers;
  }
}

}  // namespace

void ModelOptions::add_to(CLI::App& app) {
  app.add_option("--model", model,
                 "Folder of a Hugging Face Llama or LongLLaMA: config.json, model.safetensors, tokenizer.model")
      ->required();
  app.add_option("--compute", compute,
                 "Type to compute in: float32 or bfloat16 (default: as the checkpoint; float16 computes in bfloat16)");
  app.add_option("--weights", weights,
                 "Format of weight matrices: float32, bfloat16, int8 or int4; the quantised ones round the inputs of "
                 "matrix products to int8 (default: as --compute)");
  app.add_option("--mem-layers", mem_layers,
                 "Layers that attend to memory, such as 2,3, or none (default: as the model's config says)");
  add_count(app, "--window", window, "Tokens in a window (default: as the model's config says)");
  add_count(app, "--last-context-length", last_context_length,
            "Tokens at the end of a prompt that stay out of memory (default: as the model's config says)");
  app.add_option("--mem-dtype", mem_dtype,
                 "Type of stored keys and values: bfloat16, float16 or float32 (default: as the model's config says)");
  app.add_option(
      "--rope", rope,
      "How plain layers rotate positions: METHOD[:key=value]..., such as yarn:factor=4 or none; lifts the limit "
      "of --window (default: as the model's config says; see memlane rope)");
  app.add_option("--memory-rope", memory_rope, "The same for memory layers (default: as the model's config says)");
  add_local_to(app);
  app.add_option("--index,--lookup", index,
                 "How memory is looked up: dense (every entry), exact (the best of a full scan), int8 (the same, "
                 "scanned in int8), ivf (lists of near keys), auto (by the number of entries), or a FAISS index such "
                 "as Flat, IVF256,Flat or HNSW32 (default: dense)");
  app.add_option("--index-parameters", index_parameters,
                 "Of ivf: chunk, lists, probes, rerank, tail, mass, such as probes=64,tail=on; of int8: chunk, rerank, "
                 "tail, mass; or FAISS's search parameters, such as nprobe=32 or efSearch=128");
  add_count(app, "--top-k", top_k, "Entries that each query attends to unless the lookup is dense (default: 128)",
            {.least = 1});
  add_count(app, "--threads", threads, "Threads to run on", {.least = 1, .most = 4096});
  app.add_option("--instruction-set", instruction_set,
                 "portable, avx2, avx512, avx512-bf16 or avx512-amx; the default is the best of this machine")
      ->capture_default_str();
  app.add_option(
         "--device", device,
         "What runs the model: cpu, cuda:N (experimental: a GPU, if built for them), or auto (a GPU if there is one)")
      ->capture_default_str();
}

/// How layers look at their local context.
void ModelOptions::add_local_to(CLI::App& app) {
  add_count(app, "--memory-window", memory_window,
            "Tokens after which memory layers move their part of a window to memory (default: the window, but at most "
            "max_position_embeddings)");
  add_count(app, "--overlap", overlap, "Tokens of a full window that plain layers still see in the next (default: 0)");
  add_count(app, "--sliding-window", sliding_window,
            "Plain layers see only so many tokens: the last ones, and the sinks (default: no limit)");
  add_count(app, "--sinks", sinks, "With --sliding-window: first tokens that stay visible (default: 0)");
  add_count(app, "--capped-distance", capped_distance,
            "In plain layers greater distances count as this one (default: no cap)");
  app.add_option("--dynamic-mode", dynamic_mode,
                 "Where the scaling follows the length: whole-sequence (frequencies of a full window), consistent (of "
                 "the length so far, for all keys) or inconsistent (of each token's own step) (default: consistent)");
}

void ModelOptions::take_from(const MemoryFile& file) {
  const MemoryFileHeader& header = file.header();
  memory_ = file.path().string();
  const auto made_with = header.settings.find("weights");
  if (!weights) weights = made_with == header.settings.end() ? header.compute : made_with->second;
  if (!compute) compute = header.compute;
  if (!mem_layers) mem_layers = layers_text(header.shape.layers);
  if (!window) window = header.window;
  if (!mem_dtype) mem_dtype = name_of(header.shape.dtype);
  const auto take_rope = [&](const char* name, std::optional<std::string>& option) {
    const auto found = header.settings.find(name);
    if (option || found == header.settings.end()) return;
    // What is too long for the header is taken from the model's config; the header tells whether it is the same.
    const bool is_fingerprint = found->second.find(kRopeFingerprint) != std::string::npos;
    option = is_fingerprint ? found->second.substr(0, found->second.find(':')) : found->second;
  };
  take_rope("rope", rope);
  take_rope("memory rope", memory_rope);
  take_local_from(file);
  if (!index) {
    index = header.lookup;
    const auto parameters = header.settings.find("index parameters");
    if (!index_parameters && parameters != header.settings.end()) index_parameters = parameters->second;
    if (!top_k && header.top_k > 0) top_k = header.top_k;
  }
}

void ModelOptions::take_local_from(const MemoryFile& file) {
  const auto& settings = file.header().settings;
  const auto take = [&](const char* name, std::optional<std::size_t>& option) {
    const auto found = settings.find(name);
    if (!option && found != settings.end()) {
      option = parse_count(fmt::format("{}: {}", memory_, name), found->second, {.least = 1});
    }
  };
  take("memory window", memory_window);
  if (!memory_window && window == file.header().window && !file.header().shape.layers.empty()) {
    memory_window = file.header().window;  // the file says nothing where it is the whole window
  }
  take("capped distance", capped_distance);
  const auto mode = settings.find("dynamic mode");
  if (!dynamic_mode && mode != settings.end()) dynamic_mode = mode->second;
}

CpuExec ModelOptions::make_exec() const {
  device_choice();  // refuses a device that is not there before anything is read
  const InstructionSet set = instruction_set_named(instruction_set.c_str());
  try {
    return CpuExec(threads, set);
  } catch (const std::system_error& error) {
    input_error("--threads {}: the system does not start so many threads ({}); use fewer", threads, error.what());
  }
}

MemorySettings ModelOptions::settings(const ModelConfig& config) const {
  MemoryOverrides result;
  if (mem_layers) result.mem_layers = parse_layers(*mem_layers);
  result.window = window;
  result.last_context_length = last_context_length;
  result.rope = rope;
  result.memory_rope = memory_rope;
  result.memory_window = memory_window;
  result.overlap = overlap;
  result.sliding_window = sliding_window;
  result.sinks = sinks;
  result.capped_distance = capped_distance;
  if (dynamic_mode) result.dynamic_mode = dynamic_mode_named("--dynamic-mode", *dynamic_mode);
  if (mem_dtype) result.mem_dtype = dtype_named("--mem-dtype", *mem_dtype, true);
  try {
    return resolve_memory_settings(config, result);
  } catch (const InputError& error) {
    if (memory_.empty()) throw;
    input_error(
        "{}: this memory was made with another model or other settings: {}; use those of the file, or ingest into a "
        "new file",
        memory_, error.what());
  }
}

Lookup ModelOptions::lookup() const {
  Lookup result = Lookup::named(index.value_or("dense"));
  if (top_k) result.top_k = *top_k;
  if (index_parameters) result.parameters = *index_parameters;
  if (result.kind == Lookup::Kind::dense && top_k) {
    input_error(
        "--top-k {}: expected none, since the lookup dense attends to every entry; choose --index exact or another",
        *top_k);
  }
  if (result.kind == Lookup::Kind::automatic && !result.parameters.empty()) {
    input_error("--index-parameters {}: expected none, since --index auto chooses; name an index that takes them",
                result.parameters);
  }
  if (!result.has_index() && !result.parameters.empty()) {
    input_error("--index-parameters {}: expected none, since only an index takes parameters; the lookup is {}",
                result.parameters, result.name());
  }
  if (result.has_lists()) ListSettings::of(result);  // refused before any work
  return result;
}

Lookup ModelOptions::lookup(std::size_t entries, bool quiet) const {
  LookupChoice choice = resolve(lookup(), entries);
  if (!choice.reason.empty() && choice.lookup.has_index() && !device_choice().is_cpu()) {
    choice.lookup.kind = Lookup::Kind::exact;
    choice.reason += ", but a GPU has no lists";
  }
  if (!choice.reason.empty() && !quiet) fmt::print(stderr, "lookup {}: {}\n", choice.lookup.name(), choice.reason);
  return choice.lookup;
}

Precision ModelOptions::precision() const {
  Precision result = compute ? dtype_named("--compute", *compute, false) : default_compute(Checkpoint::open(model));
  if (weights) result.weights = weights_named(*weights);
  return result;
}

void require_room(const ModelConfig& config, const MemorySettings& settings, Precision precision, const Lookup& lookup,
                  const Load& load, std::string_view what, std::string_view advice) {
  const std::size_t indexes = index_bytes(entry_shape(config, settings), lookup, load.tokens + load.stored_tokens);
  require_memory(weight_bytes(config, precision) + Session::bytes(config, settings, precision.compute, load.tokens) +
                     indexes + load.other_bytes,
                 what, advice);
}

std::string layers_text(const std::vector<int>& layers) {
  return layers.empty() ? "none" : fmt::format("{}", fmt::join(layers, ","));
}

}  // namespace memlane
