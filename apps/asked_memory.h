#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/exec.h"
#include "memory/document_memory.h"
#include "memory/joint_index.h"
#include "memory/memory_file.h"
#include "runtime/model.h"

namespace memlane {

/// Which documents of a memory file are asked.
struct AskedDocuments {
  std::vector<std::string> words;  ///< names and ids; none for all documents

  void add_to(CLI::App& app);
  /// Opens a memory file to ask them. All of it is verified if all are asked, else what they have in it and what every
  /// record says of itself: damage elsewhere cannot change an answer. Throws InputError as MemoryFile and choose() do.
  MemoryFile open(const std::filesystem::path& path) const;
  /// Their ids, ascending: of those that have entries. Throws InputError if a word names no document of the file, or if
  /// nothing of them has been read.
  std::vector<std::uint32_t> choose(const MemoryFile& file) const;
};

/// The memory of documents of a file, to be asked.
class AskedMemory {
 public:
  /// ids: as AskedDocuments::choose gives them. With the lookup ivf the joint index of the file is used if it serves
  /// when these are asked (has_joint_index_for). Throws InputError if the file was made with another model or settings.
  /// The file must outlive this.
  AskedMemory(CpuExec& exec, const MemoryFile& file, std::vector<std::uint32_t> ids, const Model& model,
              const std::string& tokenizer_fingerprint, const MemorySettings& settings, const Lookup& lookup);

  /// Those that joint() covers come first; else in the order of the ids.
  const std::vector<const DocumentMemory*>& seen() const { return seen_; }
  /// Over the first of them, or null.
  const JointIndex* joint() const { return joint_ ? &*joint_ : nullptr; }
  /// Whether not all of the file fits into memory.
  bool is_on_disk() const { return on_disk_; }
  /// The id of each document seen.
  const std::vector<std::uint32_t>& ids() const { return ids_; }

 private:
  std::vector<std::uint32_t> ids_;
  std::vector<std::unique_ptr<DocumentMemory>> documents_;
  std::vector<const DocumentMemory*> seen_;
  std::optional<JointIndex> joint_;
  bool on_disk_ = false;
};

/// Entries of documents.
std::size_t entries_of(const MemoryFile& file, const std::vector<std::uint32_t>& ids);

}  // namespace memlane
