#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/model_config.h"

namespace memlane {

/// What a method comes to for a model and a text.
struct MethodSettings {
  MemorySettings memory;
  /// Before every next token the whole text is read anew, so that every layer's keys and values are those of the
  /// current length: the exact reference for methods whose frequencies depend on it.
  bool recompute = false;
  std::size_t last_context = 0;  ///< tokens at the end of a document that stay local when a question follows
};

/// A way of reading long texts, as an evaluation names it: PARTS[:key=value]*, PARTS joined by '+'.
///
/// PARTS: memory (the model's memory layers; without it none), at most one RoPE scaling (the names of
/// parse_rope_scaling: linear, yarn, ..., base for another theta; or none), sliding (plain layers see the last tokens
/// and the first few), capped (relative distances end at a limit). Keys: window (tokens, or full: the text's length),
/// memory-window (tokens, or full: the window), memory-rope (the scaling of memory layers: a specification with '/'
/// between its keys, or same), overlap, last-context, sliding, sinks, distance, mode (of dynamic scalings:
/// whole-sequence, consistent, inconsistent, recompute), and every key of parse_rope_scaling (numbers of a list are
/// separated by ';', since commas separate methods). A needed factor that is
/// not given is max(1, window / original length); of memory-rope the window is that of memory layers. Examples: none,
/// memory, yarn, none:window=full, dynamic-ntk:mode=consistent, memory+yarn:factor=4:window=8192.
class Method {
 public:
  /// Throws InputError that names the method, the part or key, and what was expected.
  static Method parse(std::string_view text);

  /// The settings for a text.
  /// base: how the model reads without a method: its window, memory layers, RoPE. length: tokens of the text. room:
  /// tokens that may follow it; a full window has place for them. Throws InputError, naming method and key, for values
  /// that do not fit model or length.
  MethodSettings settings(const ModelConfig& config, const MemorySettings& base, std::size_t length,
                          std::size_t room = 0) const;

  const std::string& text() const { return text_; }
  bool with_memory() const { return memory_; }
  /// The text without mode=...: methods that differ in it alone share it.
  const std::string& family() const { return family_; }
  /// The value of mode=..., empty if not given.
  std::string mode() const;

 private:
  void add_part(const std::string& part);
  std::optional<std::size_t> window(const MemorySettings& base) const;
  MemoryOverrides local_context(const ModelConfig& config, const MemorySettings& base,
                                const MemorySettings& memory) const;
  RopeScaling memory_rope(const ModelConfig& config, const MemorySettings& memory, std::size_t tokens) const;
  std::size_t count(const std::string& key, std::size_t least, std::size_t most) const;
  const std::string* find(const std::string& key) const;

  std::string text_;
  std::string family_;
  bool memory_ = false;
  bool sliding_ = false;
  bool capped_ = false;
  std::string scaling_;                      // a RoPE scaling's name; empty or none: the model's own
  std::string scaling_keys_;                 // ":key=value" for parse_rope_scaling
  std::map<std::string, std::string> keys_;  // the others
};

}  // namespace memlane
