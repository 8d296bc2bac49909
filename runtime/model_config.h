#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/scalar.h"
#include "runtime/rope_scaling.h"

namespace memlane {

/// The config.json of a Llama or LongLLaMA, checked: every size is positive and bounded so that products of any two fit
/// 64 bits, and everything in the file that would change the maths is either here or was refused.
struct ModelConfig {
  std::string model_type;  // "llama" or "longllama"
  std::size_t vocab_size = 0;
  std::size_t hidden_size = 0;
  std::size_t intermediate_size = 0;
  std::size_t num_layers = 0;
  std::size_t num_heads = 0;
  std::size_t num_kv_heads = 0;             // divides num_heads
  std::size_t head_dim = 0;                 // even
  std::size_t max_position_embeddings = 0;  // tokens
  float rms_norm_eps = 0;
  RopeScaling rope;         // of plain layers
  RopeScaling memory_rope;  // of memory layers
  bool tie_word_embeddings = false;
  int bos_token_id = 0;            // -1 if the config says null: no beginning-of-text token
  std::vector<int> eos_token_ids;  // empty if the config says null

  // LongLLaMA's keys, read for both model types.
  std::vector<int> mem_layers;  // ascending, each in 0..num_layers - 1
  bool mem_positionals = true;
  DType mem_dtype = DType::bf16;
  std::optional<std::size_t> last_context_length;  // tokens; as the file says, not yet held against a window
};

/// Reads `model_dir`/config.json; absent keys take the defaults of Hugging Face's LlamaConfig and of LongLLaMA's config
/// class. Throws InputError that names the file, the key, what was expected and what was found.
ModelConfig read_model_config(const std::filesystem::path& model_dir);

/// Which frequencies keys and queries have where the scaling follows the length of the local context.
enum class DynamicMode {
  whole_sequence,  ///< those of a full window, always
  consistent,      ///< those of the length so far, for the keys before too: they are rotated again when it grows
  inconsistent     ///< those of the length at the token's own step
};

/// What the command line may set over the config.
struct MemoryOverrides {
  std::optional<std::vector<int>> mem_layers = {};      // an empty list turns the memory off
  std::optional<std::size_t> window = {};               // tokens
  std::optional<std::size_t> last_context_length = {};  // tokens
  std::optional<DType> mem_dtype = {};
  std::optional<std::string> rope = {};  // of plain layers, as parse_rope_scaling reads it; lifts the window's limit
  std::optional<std::string> memory_rope = {};  // of memory layers
  std::optional<std::size_t> memory_window = {}, overlap = {}, sliding_window = {}, sinks = {},
                             capped_distance = {};  // tokens
  std::optional<DynamicMode> dynamic_mode = {};
};

/// How a model reads a document.
struct MemorySettings {
  std::vector<int> mem_layers;          // ascending; empty: a plain Llama
  std::size_t window = 0;               // tokens, 1..max_position_embeddings, or any number with a rope override
  std::size_t last_context_length = 0;  // tokens, 1..window
  bool mem_positionals = true;
  DType mem_dtype = DType::bf16;
  RopeScaling rope = {};         // of plain layers
  RopeScaling memory_rope = {};  // of memory layers; without effect if mem_positionals is false
  // How layers look at their local context (runtime/local_settings.h).
  std::size_t memory_window = 0;  // tokens, 1..window: memory layers cut a window into sub-windows of this length, each
                                  // moved to memory before the next
  std::size_t overlap = 0;        // tokens of a full window that plain layers still see in the next one, < window
  std::size_t sliding_window = 0;   // plain layers see the sinks and so many last tokens, less the sinks; 0: no limit
  std::size_t sinks = 0;            // first tokens that stay visible behind a sliding window, < sliding_window
  std::size_t capped_distance = 0;  // of plain layers: greater distances count as this one; 0: no cap
  DynamicMode dynamic_mode = DynamicMode::consistent;
};

/// The window of a longllama is max_position_embeddings; of a llama too, but at most 2048 once it has memory layers.
/// With a rope override it may be longer: the user asks to extrapolate. The last context is what the command line says,
/// else the config, else min(1024, window). Scalings are the config's unless overridden; a needed factor that an
/// override leaves out is max(1, window / original length); of memory layers it is their memory window. Throws
/// InputError, naming flag or key, if a value is outside its range.
MemorySettings resolve_memory_settings(const ModelConfig& config, const MemoryOverrides& overrides);

}  // namespace memlane
