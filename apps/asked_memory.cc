#include "apps/asked_memory.h"

#include <algorithm>
#include <utility>

#include "kernels/error.h"
#include "memory/document_choice.h"
#include "runtime/resources.h"
#include "runtime/stored_memory.h"

namespace memlane {

void AskedDocuments::add_to(CLI::App& app) {
  app.add_option("--documents", words,
                 "Names or ids of the documents to ask, separated by commas (default: all of the memory file)")
      ->type_name("NAME|ID,...")
      ->expected(1)
      ->take_all();
}

MemoryFile AskedDocuments::open(const std::filesystem::path& path) const {
  if (words.empty()) return MemoryFile::open(path);
  MemoryFile file = MemoryFile::open_heads(path);
  const std::vector<std::uint32_t> ids = choose(file);
  file.verify(ids);
  if (joint_index_is_within(file, ids)) file.verify_joint_index();
  return file;
}

std::vector<std::uint32_t> AskedDocuments::choose(const MemoryFile& file) const {
  std::vector<std::uint32_t> ids = choose_documents(file, "--documents", words);
  if (words.empty()) {
    for (const StoredDocument& document : file.documents()) ids.push_back(document.info.id);
  }
  std::erase_if(ids, [&](std::uint32_t id) { return file.documents()[id].windows.empty(); });
  if (!ids.empty()) return ids;
  if (words.empty()) input_error("{}: holds no document yet; ingest one first", file.path().string());
  input_error("{}: nothing of these documents has been read yet; ingest them first", file.path().string());
}

AskedMemory::AskedMemory(CpuExec& exec, const MemoryFile& file, std::vector<std::uint32_t> ids, const Model& model,
                         const std::string& tokenizer_fingerprint, const MemorySettings& settings, const Lookup& lookup)
    : ids_(std::move(ids)), on_disk_(file.bytes() > free_memory()) {
  // How a question looks memory up is free; how the documents did while they were read is part of what their entries
  // mean.
  MemoryFileHeader asked_for = memory_header(model, tokenizer_fingerprint, settings, lookup);
  asked_for.lookup = file.header().lookup;
  asked_for.top_k = file.header().top_k;
  asked_for.settings.erase("index parameters");
  for (const char* of_reading : {"index parameters", kEviction}) {
    const auto found = file.header().settings.find(of_reading);
    if (found != file.header().settings.end()) asked_for.settings.insert(*found);
  }
  require_same_meaning(file, asked_for);
  if (has_joint_index_for(file, ids_, lookup)) {
    joint_ = load_joint_index(exec, file, lookup);
    const auto others = std::ranges::stable_partition(ids_, [&](auto id) { return file.joint_index().covers(id); });
    const std::span<const std::uint32_t> covered(ids_.begin(), others.begin());
    documents_ = load_documents(exec, file, covered, Lookup());  // without lists of their own
    for (auto& other : load_documents(exec, file, others, lookup)) documents_.push_back(std::move(other));
  } else {
    documents_ = load_documents(exec, file, ids_, lookup);
  }
  if (lookup.kind == Lookup::Kind::ivf) file.expect_scattered_reads();
  for (const auto& document : documents_) seen_.push_back(document.get());
}

std::size_t entries_of(const MemoryFile& file, const std::vector<std::uint32_t>& ids) {
  std::size_t entries = 0;
  for (const std::uint32_t id : ids) entries += file.documents()[id].entries();
  return entries;
}

}  // namespace memlane
