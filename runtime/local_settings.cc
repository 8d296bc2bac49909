#include "runtime/local_settings.h"

#include <algorithm>

#include "kernels/error.h"

namespace memlane {

namespace {

void refuse_together(bool first, std::string_view first_flag, bool second, std::string_view second_flag) {
  if (!first || !second) return;
  input_error("{} and {}: expected one of them, found both; plain layers look at their context in one way at a time",
              first_flag, second_flag);
}

std::size_t in_range(std::string_view flag, const std::optional<std::size_t>& given, std::size_t least,
                     std::size_t most, std::string_view why) {
  if (!given) return 0;
  if (*given < least || *given > most) {
    input_error("{}: expected {} to {} tokens ({}), found {}", flag, least, most, why, *given);
  }
  return *given;
}

}  // namespace

std::size_t resolve_memory_window(const ModelConfig& config, const MemoryOverrides& overrides,
                                  const MemorySettings& settings) {
  const bool remembers = !settings.mem_layers.empty();
  if (overrides.memory_window && !remembers) {
    input_error("--memory-window {}: expected memory layers, found none; choose some with --mem-layers",
                *overrides.memory_window);
  }
  in_range("--memory-window", overrides.memory_window, 1, settings.window, "the window");
  // The trained length: max_position_embeddings, whatever the plain layers are stretched to.
  const std::size_t usual = remembers ? std::min(settings.window, config.max_position_embeddings) : settings.window;
  return overrides.memory_window.value_or(usual);
}

void resolve_local_settings(const ModelConfig& config, const MemoryOverrides& overrides, MemorySettings& settings) {
  const std::size_t window = settings.window;
  settings.memory_window = resolve_memory_window(config, overrides, settings);
  settings.overlap = in_range("--overlap", overrides.overlap, 0, window - 1, "less than the window");
  settings.sliding_window = in_range("--sliding-window", overrides.sliding_window, 1, window, "the window");
  if (overrides.sinks && settings.sliding_window == 0) {
    input_error("--sinks {}: expected --sliding-window with it, found none", *overrides.sinks);
  }
  settings.sinks = settings.sliding_window == 0 ? 0
                                                : in_range("--sinks", overrides.sinks, 0, settings.sliding_window - 1,
                                                           "less than the sliding window");
  settings.capped_distance =
      in_range("--capped-distance", overrides.capped_distance, 1, std::size_t{1} << 30, "a distance");
  settings.dynamic_mode = overrides.dynamic_mode.value_or(DynamicMode::consistent);
  if (overrides.dynamic_mode && !depends_on_length(settings.rope) && !depends_on_length(settings.memory_rope)) {
    input_error(
        "--dynamic-mode {}: expected a scaling that follows the length, found none; choose one with --rope, "
        "such as dynamic-ntk:factor=2",
        name_of(*overrides.dynamic_mode));
  }
  const bool follows = follows_length(config, settings, LayerKind::plain);
  const std::string mode = "--dynamic-mode " + name_of(settings.dynamic_mode);
  refuse_together(settings.sliding_window > 0, "--sliding-window", settings.overlap > 0, "--overlap");
  refuse_together(settings.sliding_window > 0, "--sliding-window", settings.capped_distance > 0, "--capped-distance");
  refuse_together(settings.sliding_window > 0, "--sliding-window", follows, mode);
  refuse_together(settings.capped_distance > 0, "--capped-distance", follows, mode);
  // A key that keeps its own frequencies cannot get a new position.
  refuse_together(settings.overlap > 0, "--overlap", follows && settings.dynamic_mode == DynamicMode::inconsistent,
                  mode);
}

std::size_t local_capacity(const MemorySettings& settings, LayerKind kind) {
  if (kind == LayerKind::memory && !settings.mem_layers.empty()) return settings.memory_window;
  // Twice a sliding window, so that it is moved to the front once for as many tokens as it has.
  return settings.sliding_window > 0 ? 2 * settings.sliding_window : settings.window;
}

std::size_t full_length(const MemorySettings& settings, LayerKind kind) {
  return kind == LayerKind::memory ? settings.memory_window : settings.window;
}

std::size_t longest_pass(const MemorySettings& settings) {
  return std::min(local_capacity(settings, LayerKind::plain), local_capacity(settings, LayerKind::memory));
}

bool fills_up(const MemorySettings& settings) {
  return (!settings.mem_layers.empty() && settings.memory_window < settings.window) || carries_over(settings);
}

bool carries_over(const MemorySettings& settings) {
  return settings.overlap > 0 || settings.sliding_window > 0;
}

bool changes_with_length(const ModelConfig& config, const MemorySettings& settings, LayerKind kind) {
  const RopeScaling& rope = kind == LayerKind::memory ? settings.memory_rope : settings.rope;
  if (kind == LayerKind::memory && settings.mem_layers.empty()) return false;
  return depends_on_length(rope) && rope_frequencies(rope, config.head_dim, 1) !=
                                        rope_frequencies(rope, config.head_dim, full_length(settings, kind));
}

bool follows_length(const ModelConfig& config, const MemorySettings& settings, LayerKind kind) {
  return settings.dynamic_mode != DynamicMode::whole_sequence && changes_with_length(config, settings, kind);
}

bool keeps_unrotated_keys(const ModelConfig& config, const MemorySettings& settings) {
  return carries_over(settings) ||
         (settings.dynamic_mode == DynamicMode::consistent && follows_length(config, settings, LayerKind::plain));
}

std::string name_of(DynamicMode mode) {
  switch (mode) {
    case DynamicMode::whole_sequence:
      return "whole-sequence";
    case DynamicMode::consistent:
      return "consistent";
    case DynamicMode::inconsistent:
      break;
  }
  return "inconsistent";
}

DynamicMode dynamic_mode_named(std::string_view flag, std::string_view name) {
  for (const DynamicMode mode : {DynamicMode::whole_sequence, DynamicMode::consistent, DynamicMode::inconsistent}) {
    if (name == name_of(mode)) return mode;
  }
  input_error("{} {}: expected whole-sequence, consistent or inconsistent", flag, name);
}

}  // namespace memlane
