#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "runtime/model_config.h"

namespace memlane {

/// The two kinds of layers.
enum class LayerKind {
  plain,  ///< attends to its local context
  memory  ///< attends to its local context and to memory
};

/// Fills in the members of `settings` that say how layers look at their local context (memory_window and all below it)
/// from what was asked for; the others are resolved already. Throws InputError, naming the flags, if a value is outside
/// its range or two contradict each other.
void resolve_local_settings(const ModelConfig& config, const MemoryOverrides& overrides, MemorySettings& settings);

/// The memory_window that comes of it. settings: with memory layers and window. Throws InputError as
/// resolve_local_settings does.
std::size_t resolve_memory_window(const ModelConfig& config, const MemoryOverrides& overrides,
                                  const MemorySettings& settings);

/// Tokens that the local context of a kind of layers holds at most. Where there are no memory layers, as many as of
/// plain ones.
std::size_t local_capacity(const MemorySettings& settings, LayerKind kind);

/// Tokens in a full window of a kind of layers: the length of the whole sequence for scalings that ask for one.
std::size_t full_length(const MemorySettings& settings, LayerKind kind);

/// Tokens of one forward pass at most.
std::size_t longest_pass(const MemorySettings& settings);

/// Whether a full window leaves something behind or is cut: then calls fill windows up instead of moving to memory what
/// would not fit.
bool fills_up(const MemorySettings& settings);

/// Whether plain layers carry something from one window to the next, so that a window cannot be read by itself.
bool carries_over(const MemorySettings& settings);

/// Whether a kind of layers has other frequencies at the end of a full window than at its start.
bool changes_with_length(const ModelConfig& config, const MemorySettings& settings, LayerKind kind);

/// Whether, then, they are taken anew for every pass.
bool follows_length(const ModelConfig& config, const MemorySettings& settings, LayerKind kind);

/// Whether plain layers keep their keys un-rotated too, because they may have to be rotated again.
bool keeps_unrotated_keys(const ModelConfig& config, const MemorySettings& settings);

/// "consistent"; the inverse throws InputError that names the flag.
std::string name_of(DynamicMode mode);
DynamicMode dynamic_mode_named(std::string_view flag, std::string_view name);

}  // namespace memlane
