#pragma once

#include <memory>
#include <vector>

#include "kernels/exec.h"
#include "memory/document_memory.h"
#include "memory/memory_file.h"
#include "runtime/model.h"

namespace memlane {

/// The memory of every document of a file, to be asked.
class AskedMemory {
 public:
  /// Throws InputError if the file was made with another model or settings, or holds nothing yet. The file must outlive
  /// this.
  AskedMemory(CpuExec& exec, const MemoryFile& file, const Model& model, const std::string& tokenizer_fingerprint,
              const MemorySettings& settings, const Lookup& lookup);

  const std::vector<const DocumentMemory*>& seen() const { return seen_; }

 private:
  std::vector<std::unique_ptr<DocumentMemory>> documents_;
  std::vector<const DocumentMemory*> seen_;
};

/// Entries of all documents.
std::size_t entries_of(const MemoryFile& file);

}  // namespace memlane
