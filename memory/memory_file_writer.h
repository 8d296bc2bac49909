#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "memory/file_io.h"
#include "memory/growing_map.h"
#include "memory/memory_file.h"
#include "memory/segment.h"

namespace memlane {

/// Appends to a memory file. One writer at a time (a lock that no crash can leave behind); any number of readers
/// meanwhile.
///
/// Every call that stores something is durable when it returns, and all or nothing: a crash at any point, or a failure
/// (a full disk), leaves the state of the last call that returned. Failures are InputErrors that name the file and the
/// reason; the file is as before the call, which may be tried again.
class MemoryFileWriter {
 public:
  /// Creates a file without documents. Throws InputError if something is there already, or if it cannot be written;
  /// then nothing is left behind. The file appears under its name complete, or not at all; until then it is called
  /// `path` + ".new".
  static MemoryFileWriter create(const std::filesystem::path& path, const MemoryFileHeader& header,
                                 FileCalls calls = {});
  /// Opens a file to append to it. It is verified as MemoryFile::open does; what a crash left after the last commit is
  /// cut off.
  static MemoryFileWriter append_to(const std::filesystem::path& path, FileCalls calls = {});

  /// What the file held when this writer opened it, mapped; what is appended later is not in it.
  const MemoryFile& stored() const { return stored_; }
  const Commit& commit() const { return commit_; }

  /// Begins a document and returns its id; `info.id` is ignored. Several documents may be unfinished at a time.
  std::uint32_t begin_document(const DocumentInfo& info);

  /// Stores the next window of an unfinished document, with all of its segments or none. ids: the tokens of the
  /// segments' entries in order, as many, none negative. The entries of a document never become more than its planned
  /// tokens, nor those of a window more than the header's.
  /// seen: what the next window sees, these segments included, where the header says that the least attended windows
  /// are evicted; else empty. Every window but the last of a document then has the header's number of entries.
  void append_window(std::uint32_t document, std::span<const std::int32_t> ids, std::span<const Segment> segments,
                     std::span<const SeenWindow> seen = {});
  void append_window(std::uint32_t document, std::span<const std::int32_t> ids, const Segment& segment,
                     std::span<const SeenWindow> seen = {}) {
    append_window(document, ids, {&segment, 1}, seen);
  }

  /// Where the entries that append_window() stored last lie in the mapped file: for each segment the same bytes,
  /// aligned to 64. They stay there while the writer lives, also when it is moved. Throws InputError if the file cannot
  /// be mapped.
  std::vector<const std::byte*> map_last_window();

  /// Stores the key indexes of a document, replacing those stored before.
  /// entries_covered: they index the first so many entries. blobs: [memory layers * kv heads], layer-major.
  void store_indexes(std::uint32_t document, std::size_t entries_covered,
                     std::span<const std::vector<std::byte>> blobs);

  /// Stores a joint index over all entries of documents, replacing one stored before. It counts until one of them is
  /// dropped. documents: ids, ascending, one or more, all complete, none empty or dropped. blobs: [memory layers * kv
  /// heads], layer-major. Throws InputError if the file is of a version that has none.
  void store_joint_index(std::span<const std::uint32_t> documents, std::span<const std::vector<std::byte>> blobs);
  /// The same, of blobs that are made when they are asked for: the next with each call. What next_blob throws undoes it
  /// all and goes on to the caller.
  void store_joint_index(std::span<const std::uint32_t> documents,
                         const std::function<std::vector<std::byte>()>& next_blob);
  /// Throws that InputError, before an index is made for nothing.
  void require_joint_indexes() const;

  /// Marks a document complete: all its planned tokens have entries. No window can follow.
  void end_document(std::uint32_t document);

  /// Drops documents, all of them or none: they count no longer, their ids are not given again, and their bytes stay
  /// until the file is compacted. documents: none twice, none dropped before. Throws InputError if the file is of a
  /// version that cannot say so.
  void drop_documents(std::span<const std::uint32_t> documents);

  /// Copies a document of another file with an equal header: its windows, its newest key indexes and its end if it is
  /// complete, all or nothing. Entries and indexes keep the checksums that they were read under. Returns its id here.
  /// progress: called after each record with the bytes stored so far; what it throws undoes the copy and goes on to
  /// the caller.
  using Progress = std::function<void(std::uint64_t)>;
  std::uint32_t copy_document(const StoredDocument& source, const Progress& progress = {});
  /// Bytes that copying a document stores.
  static std::uint64_t copied_bytes(const StoredDocument& source, const EntryShape& shape);

  /// Begins a file that is to take the place of `path`: until take_place() it is called `path` + ".new". It has the
  /// permissions of `path`.
  static MemoryFileWriter create_successor(const std::filesystem::path& path, const MemoryFileHeader& header,
                                           FileCalls calls = {});
  /// Verifies the whole file, then gives it the name of the file that it succeeds, in one step and durably. Nothing can
  /// be stored by this writer afterwards. If it throws, `path` is one of the two files, whole.
  void take_place();
  /// Removes a successor that has not taken its place.
  void discard_successor() noexcept;

  /// Removes a file that this writer created and that holds no window: an interrupted start leaves nothing. Returns
  /// whether it did; then the writer must not be used any more.
  bool discard_if_empty();

 private:
  struct Document {
    std::uint64_t tokens = 0;
    std::uint64_t entries = 0;
    std::uint32_t windows = 0;
    bool complete = false;
    bool dropped = false;
  };
  struct Record;
  static Record begin_record(std::uint32_t id, const DocumentInfo& info);
  static std::vector<Record> records_of(const StoredDocument& source, const EntryShape& shape, std::uint32_t id);

  MemoryFileWriter(WritableFile file, MemoryFile stored, bool created);
  Document& unfinished(std::uint32_t document);
  void store(std::span<const Record> records, const Progress& progress = {});
  void store(std::size_t count, const std::function<Record(std::size_t)>& record, std::uint64_t needed = 0,
             const Progress& progress = {});
  void write_record(const Record& record, std::uint64_t needed, Commit& next);
  void write_commit(const Commit& next);
  void undo_commit();
  void cut_tail();

  WritableFile file_;
  MemoryFile stored_;
  bool created_ = false;
  std::filesystem::path successor_of_;
  bool broken_ = false;  // a failed commit could be neither finished nor undone
  Commit commit_;
  std::vector<Document> documents_;
  struct Stretch {
    std::uint64_t offset = 0;
    std::size_t bytes = 0;
  };
  std::vector<Stretch> last_window_;  // where its bodies are
  GrowingMap map_;
};

}  // namespace memlane
