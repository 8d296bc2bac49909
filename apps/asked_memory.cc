#include "apps/asked_memory.h"

#include "kernels/error.h"
#include "runtime/stored_memory.h"

namespace memlane {

AskedMemory::AskedMemory(CpuExec& exec, const MemoryFile& file, const Model& model,
                         const std::string& tokenizer_fingerprint, const MemorySettings& settings,
                         const Lookup& lookup) {
  // How a question looks memory up is free; how the documents did while they were read is part of what their entries
  // mean.
  MemoryFileHeader asked_for = memory_header(model, tokenizer_fingerprint, settings, lookup);
  asked_for.lookup = file.header().lookup;
  asked_for.top_k = file.header().top_k;
  asked_for.settings.erase("index parameters");
  const auto parameters = file.header().settings.find("index parameters");
  if (parameters != file.header().settings.end()) asked_for.settings.insert(*parameters);
  require_same_meaning(file, asked_for);
  documents_ = load_documents(exec, file, lookup);
  if (documents_.empty()) input_error("{}: holds no document yet; ingest one first", file.path().string());
  for (const auto& document : documents_) seen_.push_back(document.get());
}

std::size_t entries_of(const MemoryFile& file) {
  std::size_t entries = 0;
  for (const StoredDocument& document : file.documents()) entries += document.entries();
  return entries;
}

}  // namespace memlane
