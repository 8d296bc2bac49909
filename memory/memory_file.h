#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "memory/eviction.h"
#include "memory/mapped_file.h"
#include "memory/segment.h"

namespace memlane {

/// What the entries of a memory file mean: a file is used only with a model and settings that agree.
struct MemoryFileHeader {
  std::string model_fingerprint;      ///< hexadecimal digits; of everything of the model that changes an entry
  std::string tokenizer_fingerprint;  ///< hexadecimal digits; empty if only token ids were given
  std::string model_name;             ///< for people only; text that is not UTF-8 is stored with replacement characters
  EntryShape shape;
  std::size_t window = 0;  ///< tokens in a full window
  bool mem_positionals = true;
  std::string compute;  ///< what the entries were computed with: "float32" or "bfloat16"
  /// How memory was attended to while the documents were read: "dense", "exact" or a FAISS factory string.
  std::string lookup;
  std::size_t top_k = 0;  ///< keys per query and head; 0 for dense
  /// Any further setting that changes what was computed (a RoPE scaling, for example), by its name.
  std::map<std::string, std::string> settings;

  friend bool operator==(const MemoryFileHeader&, const MemoryFileHeader&) = default;
};

/// Every difference that changes what entries mean, as one readable line: "memory layers 2,3 in the file, 1,2 asked
/// for; …". Empty if there is none. Model names are not compared. A caller that may use entries whatever they were
/// looked up with while reading copies lookup and top_k from one to the other first.
std::string differences(const MemoryFileHeader& file, const MemoryFileHeader& asked_for);

struct DocumentInfo {
  std::uint32_t id = 0;  ///< given by the file: 0, 1, 2, … in the order in which documents were begun
  std::string name;      ///< any bytes, at most 4096; names need not differ
  std::string text_fingerprint;
  std::uint64_t text_bytes = 0;
  std::uint64_t tokens = 0;  ///< planned in all, BOS included; a complete document has as many entries

  friend bool operator==(const DocumentInfo&, const DocumentInfo&) = default;
};

/// One window of a document, in the mapped file.
struct StoredWindow {
  std::uint32_t index = 0;             ///< place in the document
  std::span<const std::int32_t> ids;   ///< [count] token ids, none negative
  const std::byte* entries = nullptr;  ///< shape.segment_bytes(count) bytes, aligned to 64, laid out as Segment says
  std::size_t count = 0;               ///< entries, 1 … header().window
  std::uint64_t checksum = 0;          ///< of the entries
  /// What the next window sees, where the least attended are evicted; else, and of windows that are parts of one, of
  /// all but the last, empty.
  std::span<const SeenWindow> seen = {};
};

/// The key indexes stored last for a document. Empty blobs: none were stored.
struct StoredIndexes {
  std::size_t entries_covered = 0;                ///< the first so many entries of the document
  std::vector<std::span<const std::byte>> blobs;  ///< [memory layers * kv heads], layer-major, each aligned to 64
  std::vector<std::uint64_t> checksums;           ///< of the blobs
};

/// A document that a joint index covers, in the mapped file as here.
struct CoveredDocument {
  std::uint32_t document = 0;  ///< its id
  std::uint32_t zero = 0;
  std::uint64_t entries = 0;  ///< all of the document's, 1 or more

  friend bool operator==(const CoveredDocument&, const CoveredDocument&) = default;
};
static_assert(sizeof(CoveredDocument) == 16);

/// The newest joint index: key indexes over the entries of several documents together, one after the other in the order
/// given. Empty if none was stored, or if a document that it covers was dropped since.
struct StoredJointIndex {
  std::vector<CoveredDocument> documents;         ///< complete ones, ids ascending
  std::vector<std::span<const std::byte>> blobs;  ///< [memory layers * kv heads], layer-major, each aligned to 64
  std::vector<std::uint64_t> checksums;           ///< of the blobs
  std::uint64_t file_bytes = 0;                   ///< of its records

  bool empty() const { return documents.empty(); }
  /// Entries that it covers in all.
  std::size_t entries() const;
  /// Whether it covers a document.
  bool covers(std::uint32_t document) const;
};

struct StoredDocument {
  DocumentInfo info;
  bool complete = false;
  bool dropped = false;               ///< only its info is left
  std::vector<StoredWindow> windows;  ///< contiguous from 0
  StoredIndexes indexes;
  std::uint64_t file_bytes = 0;  ///< of all its records, those that nobody needs any more included

  /// Entries in all windows: the tokens read so far.
  std::size_t entries() const;
};

/// A state of a memory file: everything up to `length` is there, in `records` records. Equal digests mean equal
/// contents.
struct Commit {
  std::uint64_t sequence = 0;  ///< counts commits; the file keeps the two newest
  std::uint64_t length = 0;    ///< bytes from the start of the file
  std::uint64_t records = 0;
  std::uint64_t digest = 0;  ///< of the header and of every record, in order
};

/// A memory file, mapped to be read. The format and its guarantees: docs/memory-file.md.
///
/// Opening takes no lock: a file can be read while it is written, and shows the state of its last commit at that
/// moment. Spans and pointers stay valid while the MemoryFile lives, and when it is moved. Never changes the file.
class MemoryFile {
 public:
  /// Maps and verifies a file: every checksum up to the committed length. Throws InputError naming the file, the reason
  /// and what to do if it is missing, no memory file, of another version, truncated, damaged or inconsistent.
  static MemoryFile open(const std::filesystem::path& path);
  /// The same, but what is bulk (entries of windows, key indexes) is not read, and must not be, until verify() or
  /// verify_joint_index() has verified it: opening takes no longer however much a file holds in few records.
  static MemoryFile open_heads(const std::filesystem::path& path);

  /// Verifies the windows and key indexes of documents, by their ids, that have not been. Throws InputError naming what
  /// is damaged.
  void verify(std::span<const std::uint32_t> documents);
  /// Whether those of a document have been.
  bool is_verified(std::uint32_t document) const { return verified_.at(document); }
  /// The same for the joint index; it is verified if there is none.
  void verify_joint_index();
  bool is_joint_index_verified() const { return joint_index_verified_ || joint_index_.empty(); }

  const std::filesystem::path& path() const { return file_.path(); }
  const MemoryFileHeader& header() const { return header_; }
  /// Every document that was begun, by its id: those that were dropped, too.
  const std::vector<StoredDocument>& documents() const { return documents_; }
  const StoredJointIndex& joint_index() const { return joint_index_; }
  /// Of the format: 1 cannot hold what drops a document, 2 not what windows see, 3 no joint index.
  std::uint32_t version() const { return version_; }
  const Commit& commit() const { return commit_; }
  /// Committed bytes.
  std::uint64_t bytes() const { return commit_.length; }
  /// Whether a crash (or a writer at work) left bytes after the committed ones. They are ignored, and cut off by the
  /// next writer.
  bool has_uncommitted_tail() const { return file_.bytes().size() > commit_.length; }
  /// From here on entries and indexes are read here and there, as searches of lists do, not from beginning to end.
  /// verify() ends that.
  void expect_scattered_reads() const { memlane::expect_scattered_reads(file_.bytes()); }
  /// Byte at which the commit slots start; for the writer.
  std::uint64_t commits_offset() const { return commits_offset_; }

 private:
  MemoryFile() = default;
  static MemoryFile open(const std::filesystem::path& path, bool bodies);

  MappedFile file_;
  std::uint64_t commits_offset_ = 0;
  std::uint32_t version_ = 0;
  MemoryFileHeader header_;
  Commit commit_;
  std::vector<StoredDocument> documents_;
  std::vector<bool> verified_;  // [documents]
  StoredJointIndex joint_index_;
  bool joint_index_verified_ = false;
};

}  // namespace memlane
