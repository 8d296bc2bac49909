#include "runtime/stored_memory.h"

#include "runtime/session.h"

namespace memlane {

MemoryFileHeader memory_header(const Model& model, const std::string& tokenizer_fingerprint,
                               const MemorySettings& settings, const Lookup& lookup) {
  MemoryFileHeader header;
  header.model_fingerprint = model.fingerprint;
  header.tokenizer_fingerprint = tokenizer_fingerprint;
  header.model_name = std::filesystem::absolute(model.folder).lexically_normal().filename().string();
  if (header.model_name.empty()) {  // the path ended in a slash
    header.model_name = std::filesystem::absolute(model.folder).lexically_normal().parent_path().filename().string();
  }
  header.shape = entry_shape(model.config, settings);
  header.window = settings.window;
  header.mem_positionals = settings.mem_positionals;
  header.compute = name_of(model.compute);
  header.lookup = lookup.name();
  header.top_k = lookup.kind == Lookup::Kind::dense ? 0 : lookup.top_k;
  if (!lookup.parameters.empty()) header.settings["index parameters"] = lookup.parameters;
  return header;
}

void require_same_meaning(const MemoryFile& file, const MemoryFileHeader& asked_for) {
  const std::string found = differences(file.header(), asked_for);
  if (!found.empty()) {
    input_error(
        "{}: this memory was made with another model or other settings: {}; use those of the file, or ingest into a "
        "new file",
        file.path().string(), found);
  }
}

DocumentMemory load_document(CpuExec& exec, const MemoryFile& file, const StoredDocument& document,
                             const Lookup& lookup) {
  DocumentMemory memory(file.header().shape, lookup);
  for (const StoredWindow& window : document.windows) {
    memory.append(Segment(file.header().shape, window.count, window.entries));
  }
  const bool has_index =
      lookup.kind == Lookup::Kind::faiss && lookup.factory == file.header().lookup && !document.indexes.blobs.empty();
  if (has_index) memory.load_indexes(document.indexes.blobs, document.indexes.entries_covered);
  memory.update_indexes(exec);
  return memory;
}

std::vector<std::unique_ptr<DocumentMemory>> load_documents(CpuExec& exec, const MemoryFile& file,
                                                            const Lookup& lookup) {
  std::vector<std::unique_ptr<DocumentMemory>> documents;
  for (const StoredDocument& document : file.documents()) {
    if (document.windows.empty()) continue;
    documents.push_back(std::make_unique<DocumentMemory>(load_document(exec, file, document, lookup)));
  }
  return documents;
}

std::size_t index_bytes(const EntryShape& shape, const Lookup& lookup, std::size_t entries) {
  if (lookup.kind != Lookup::Kind::faiss) return 0;
  return entries * shape.layers.size() * shape.kv_heads * (shape.head_dim * sizeof(float) + sizeof(std::int64_t));
}

}  // namespace memlane
