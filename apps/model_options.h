#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <optional>
#include <string>

#include "kernels/exec.h"
#include "memory/lookup.h"
#include "memory/memory_file.h"
#include "runtime/device.h"
#include "runtime/model.h"

namespace memlane {

/// The options of every command that runs a model. What is not given comes from the memory file, if there is one, else
/// from the model.
struct ModelOptions {
  std::string model;
  std::optional<std::string> compute, weights;
  std::optional<std::string> mem_layers;
  std::optional<std::size_t> window;
  std::optional<std::size_t> last_context_length;
  std::optional<std::string> mem_dtype;
  std::optional<std::string> rope, memory_rope;  ///< as parse_rope_scaling reads them
  std::optional<std::size_t> memory_window, overlap, sliding_window, sinks, capped_distance;
  std::optional<std::string> dynamic_mode;
  std::optional<std::string> index;
  std::optional<std::string> index_parameters;
  std::optional<std::size_t> top_k;
  std::size_t threads = available_threads();
  std::string instruction_set = name_of(detect_instruction_set());
  std::string device = "cpu";

  void add_to(CLI::App& app);
  /// Takes what was not given from a memory file.
  void take_from(const MemoryFile& file);

  CpuExec make_exec() const;
  /// Throws InputError if the options, or the memory file that they come from, do not fit the model.
  MemorySettings settings(const ModelConfig& config) const;
  /// As it was asked for: it may be automatic.
  Lookup lookup() const;
  /// For a memory of so many entries; an automatic one says why on standard error, unless quiet.
  Lookup lookup(std::size_t entries, bool quiet = false) const;
  /// What was given, else what the checkpoint is in.
  Precision precision() const;
  DeviceChoice device_choice() const { return device_named(device); }

 private:
  void add_local_to(CLI::App& app);
  void take_local_from(const MemoryFile& file);

  std::string memory_;  ///< the memory file that options were taken from
};

/// What a run is going to take.
struct Load {
  std::size_t tokens = 0;         ///< that a session reads or generates
  std::size_t stored_tokens = 0;  ///< in a memory file; only their key indexes take memory
  std::size_t other_bytes = 0;
};

/// Throws InputError if weights, session and indexes do not fit in memory. what, advice: as for require_memory().
void require_room(const ModelConfig& config, const MemorySettings& settings, Precision precision, const Lookup& lookup,
                  const Load& load, std::string_view what, std::string_view advice);

/// "2,5,11"; "none" for none.
std::string layers_text(const std::vector<int>& layers);

}  // namespace memlane
