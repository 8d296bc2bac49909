#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "kernels/error.h"

namespace memlane::fuzz {

using Input = std::span<const std::uint8_t>;

/// A reader of something from outside, given any bytes. It must read them or refuse them with an InputError; a crash, a
/// sanitizer's report, another exception (a broken contract among them) or too much time or memory is a finding.
struct Target {
  std::string_view name;
  bool (*run)(Input input);  ///< whether it was read, if only in one of the ways that are tried
};

/// All of them. The kept inputs of each are in tests/fuzz/corpus/NAME, words that it knows in dictionaries/NAME.dict.
std::span<const Target> targets();

bool memory_file(Input input);       ///< opened, used, appended to, compacted
bool checkpoint(Input input);        ///< model.safetensors
bool checkpoint_index(Input input);  ///< model.safetensors.index.json beside two shards
bool config(Input input);            ///< config.json, and what flags make of it
bool tokenizer(Input input);         ///< tokenizer.model, which then encodes and decodes
bool text(Input input);              ///< documents, lists of token ids, ids to text
bool words(Input input);             ///< rope scalings, methods, choices of documents
bool run_file(Input input);          ///< of bench run
bool list_index(Input input);        ///< stored lists of keys, which are then added to

/// The input as text.
std::string_view text_of(Input input);

/// A folder of this process's own, in the system's folder for temporary files; removed at its end.
const std::filesystem::path& folder();
/// Puts the bytes in a file of that folder.
std::filesystem::path put(std::string_view name, Input bytes);

/// Throws std::logic_error unless a refusal is one line that says something.
void check_message(std::string_view message);

/// Calls `action` and returns whether it accepted: an InputError is a refusal.
template <class Action>
bool accepts(const Action& action) {
  try {
    action();
  } catch (const InputError& error) {
    check_message(error.what());
    return false;
  }
  return true;
}

/// Reads every byte, so that a sanitizer sees where they are.
std::uint64_t read_all(std::span<const std::byte> bytes);

}  // namespace memlane::fuzz
