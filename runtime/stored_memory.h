#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/exec.h"
#include "memory/document_memory.h"
#include "memory/joint_index.h"
#include "memory/lookup.h"
#include "memory/memory_file.h"
#include "runtime/model.h"

namespace memlane {

/// In a header's "rope" and "memory rope", what stands in front of the fingerprint of a scaling too long to be there.
inline constexpr std::string_view kRopeFingerprint = "fingerprint=";

/// What a file's header says that windows saw of those before them; none for all. Throws InputError if that is not a
/// policy that to_text() writes, or one with entries that are no multiple of the window.
std::optional<EvictionPolicy> stored_eviction(const MemoryFile& file);

/// What a memory file must say to be used with this model and these settings. tokenizer_fingerprint: empty if only ids
/// are used.
MemoryFileHeader memory_header(const Model& model, const std::string& tokenizer_fingerprint,
                               const MemorySettings& settings, const Lookup& lookup);

/// Throws InputError, with every difference, if a file's entries do not mean what `asked_for` says.
void require_same_meaning(const MemoryFile& file, const MemoryFileHeader& asked_for);

/// A stored document as memory. Its segments lie in the mapped file, which must outlive it; no token is computed. Key
/// indexes come from the file if it has them for this lookup, otherwise they are built from the stored keys. watch: as
/// that of DocumentMemory::update_indexes.
DocumentMemory load_document(CpuExec& exec, const MemoryFile& file, const StoredDocument& document,
                             const Lookup& lookup, const Watch& watch = unwatched);

/// What the next window of an unfinished document sees where the least attended are evicted: the windows that its last
/// one lists.
DocumentMemory load_seen(const MemoryFile& file, const StoredDocument& document, const Lookup& lookup);

/// Documents of a file as memory: those of the ids that have entries.
std::vector<std::unique_ptr<DocumentMemory>> load_documents(CpuExec& exec, const MemoryFile& file,
                                                            std::span<const std::uint32_t> ids, const Lookup& lookup);

/// Whether the joint index of a file serves a lookup when these documents are asked: made for it, over none but them.
/// ids: ascending. The joint index must have been verified if it covers none but these.
bool has_joint_index_for(const MemoryFile& file, std::span<const std::uint32_t> ids, const Lookup& lookup);

/// Whether the joint index of a file covers none but these documents, ids ascending; false if there is none.
bool joint_index_is_within(const MemoryFile& file, std::span<const std::uint32_t> ids);

/// The joint index of a file, used where it lies in the file, which must outlive it. Throws InputError, naming the
/// file, if it is no index for the lookup.
JointIndex load_joint_index(CpuExec& exec, const MemoryFile& file, const Lookup& lookup);

/// What the key indexes of documents take as load_documents() gives them, or the joint index where it serves.
struct IndexBytes {
  std::size_t own = 0;     ///< of this process's, what is needed only while they are made included
  std::size_t mapped = 0;  ///< used where they lie in the file
};
IndexBytes stored_index_bytes(const CpuExec& exec, const MemoryFile& file, std::span<const std::uint32_t> ids,
                              const Lookup& lookup);
/// Bytes that the indexes of a document need only while entries are added: so many at once, and in all.
std::size_t indexing_bytes(const CpuExec& exec, const EntryShape& shape, const Lookup& lookup, std::size_t at_once,
                           std::size_t in_all);

/// Bytes that making the indexes of a joint index over so many entries takes.
std::size_t joint_index_making_bytes(const EntryShape& shape, const Lookup& lookup, std::size_t threads,
                                     std::size_t entries);

/// Bytes of key indexes over so many entries, for FAISS what one with full keys takes; 0 for lookups without.
std::size_t index_bytes(const EntryShape& shape, const Lookup& lookup, std::size_t entries);

}  // namespace memlane
