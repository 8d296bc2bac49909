#include "memory/memory_file_writer.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "kernels/error.h"
#include "memory/hash.h"
#include "memory/memory_file_format.h"

namespace memlane {

using namespace format;

struct MemoryFileWriter::Record {
  RecordType type;
  std::vector<std::byte> head;
  std::span<const std::byte> body;
  std::optional<std::uint64_t> body_checksum = {};  // if it is known

  std::uint64_t bytes() const { return record_bytes(head.size(), body.size()); }
};

namespace {

template <class Head>
std::vector<std::byte> head_bytes(const Head& head, std::span<const std::byte> rest = {}) {
  std::vector<std::byte> bytes(sizeof head + rest.size());
  std::memcpy(bytes.data(), &head, sizeof head);
  if (!rest.empty()) std::memcpy(bytes.data() + sizeof head, rest.data(), rest.size());
  return bytes;
}

/// The head of a window: its ids, and what the next window sees if that is to be said.
std::vector<std::byte> window_head(const WindowHead& head, std::span<const std::int32_t> ids,
                                   std::span<const SeenWindow> seen) {
  std::vector<std::byte> bytes = head_bytes(head, std::as_bytes(ids));
  if (seen.empty()) return bytes;
  bytes.resize(round_up(bytes.size(), alignof(SeenWindow)));
  const auto of_seen = std::as_bytes(seen);
  bytes.insert(bytes.end(), of_seen.begin(), of_seen.end());
  return bytes;
}

}  // namespace

MemoryFileWriter::MemoryFileWriter(WritableFile file, MemoryFile stored, bool created)
    : file_(std::move(file)), stored_(std::move(stored)), created_(created), commit_(stored_.commit()) {
  for (const StoredDocument& document : stored_.documents()) {
    documents_.push_back({document.info.tokens, document.entries(), static_cast<std::uint32_t>(document.windows.size()),
                          document.complete, document.dropped});
  }
}

MemoryFileWriter MemoryFileWriter::create(const std::filesystem::path& path, const MemoryFileHeader& header,
                                          FileCalls calls) {
  check_header(header, path);
  if (std::error_code error; std::filesystem::exists(std::filesystem::symlink_status(path, error))) {
    input_error("{}: exists already; choose another name, or add to it", path.string());
  }
  WritableFile file = WritableFile::create(path.string() + ".new", std::move(calls));
  try {
    const std::vector<std::byte> start = empty_file(header);
    file.write_at(0, start, start.size());
    file.sync();
    file.rename_to(path);
    MemoryFile stored = MemoryFile::open(path);
    return {std::move(file), std::move(stored), /*created=*/true};
  } catch (...) {
    file.remove();
    throw;
  }
}

MemoryFileWriter MemoryFileWriter::create_successor(const std::filesystem::path& path, const MemoryFileHeader& header,
                                                    FileCalls calls) {
  check_header(header, path);
  const std::filesystem::path name = path.string() + ".new";
  WritableFile file = WritableFile::create(name, std::move(calls));
  try {
    std::error_code error;
    std::filesystem::permissions(name, std::filesystem::status(path).permissions(), error);
    if (error)
      input_error("{}: cannot give it the permissions of {}: {}", name.string(), path.string(), error.message());
    const std::vector<std::byte> start = empty_file(header);
    file.write_at(0, start, start.size());
    file.sync();
    MemoryFile stored = MemoryFile::open(name);
    MemoryFileWriter writer(std::move(file), std::move(stored), /*created=*/true);
    writer.successor_of_ = path;
    return writer;
  } catch (...) {
    file.remove();
    throw;
  }
}

void MemoryFileWriter::take_place() {
  MEMLANE_EXPECTS(!successor_of_.empty() && !broken_);
  // From the disk as far as the system allows: what it holds, not what this process meant to write.
  const MemoryFile written = MemoryFile::open(file_.path());
  MEMLANE_EXPECTS(written.commit().digest == commit_.digest && written.documents().size() == documents_.size());
  const std::filesystem::path name = std::exchange(successor_of_, {});
  try {
    file_.replace(name);
  } catch (...) {
    if (file_.path() != name) successor_of_ = name;  // else it has the name, though perhaps not durably
    throw;
  }
}

void MemoryFileWriter::discard_successor() noexcept {
  if (!successor_of_.empty()) file_.remove();
}

MemoryFileWriter MemoryFileWriter::append_to(const std::filesystem::path& path, FileCalls calls) {
  WritableFile file = WritableFile::open(path, std::move(calls));
  MemoryFile stored = MemoryFile::open(path);
  if (!file.is_at_its_path()) {
    input_error("{}: another process replaced this file just now; run the command again", path.string());
  }
  if (stored.has_uncommitted_tail()) file.truncate(stored.bytes());
  return {std::move(file), std::move(stored), /*created=*/false};
}

std::uint32_t MemoryFileWriter::begin_document(const DocumentInfo& info) {
  if (info.name.size() > kLongestName || info.text_fingerprint.size() > kLongestName) {
    input_error("{}: the name of a document has {} bytes, expected at most {}; give it a shorter name",
                file_.path().string(), info.name.size(), kLongestName);
  }
  const auto id = static_cast<std::uint32_t>(documents_.size());
  const Record record = begin_record(id, info);
  store({&record, 1});
  documents_.push_back({info.tokens, 0, 0, false, false});
  return id;
}

MemoryFileWriter::Document& MemoryFileWriter::unfinished(std::uint32_t document) {
  MEMLANE_EXPECTS(document < documents_.size());
  MEMLANE_EXPECTS(!documents_[document].complete && !documents_[document].dropped);
  return documents_[document];
}

void MemoryFileWriter::append_window(std::uint32_t document, std::span<const std::int32_t> ids,
                                     std::span<const Segment> segments, std::span<const SeenWindow> seen) {
  Document& target = unfinished(document);
  const MemoryFileHeader& header = stored_.header();
  MEMLANE_EXPECTS(ids.size() <= header.window && ids.size() <= target.tokens - target.entries);
  MEMLANE_EXPECTS(std::all_of(ids.begin(), ids.end(), [](std::int32_t id) { return id >= 0; }));
  if (entries_seen(header)) {
    MEMLANE_EXPECTS(target.entries % header.window == 0 && !seen.empty());
    MEMLANE_EXPECTS(ids.size() == header.window || ids.size() == target.tokens - target.entries);
  } else {
    MEMLANE_EXPECTS(seen.empty());
  }
  std::vector<Record> records;
  std::size_t entries = 0;
  for (const Segment& segment : segments) {
    MEMLANE_EXPECTS(entries + segment.count() <= ids.size());
    MEMLANE_EXPECTS(segment.bytes().size() == header.shape.segment_bytes(segment.count()));
    const auto index = target.windows + static_cast<std::uint32_t>(records.size());
    const WindowHead head = {document, index, segment.count()};
    const auto its_ids = ids.subspan(entries, segment.count());
    entries += segment.count();
    const bool ends = entries == ids.size();
    records.push_back(
        {RecordType::window, window_head(head, its_ids, ends ? seen : std::span<const SeenWindow>()), segment.bytes()});
  }
  MEMLANE_EXPECTS(entries == ids.size());
  std::uint64_t end = commit_.length;
  store(records);
  last_window_.clear();
  for (const Record& record : records) {
    end += record.bytes();
    last_window_.push_back({end - round_up(record.body.size(), kAlignment), record.body.size()});
  }
  target.windows += static_cast<std::uint32_t>(records.size());
  target.entries += entries;
}

std::vector<const std::byte*> MemoryFileWriter::map_last_window() {
  std::vector<const std::byte*> mapped;
  for (const Stretch& stretch : last_window_) mapped.push_back(map_.at(file_, stretch.offset, stretch.bytes));
  return mapped;
}

void MemoryFileWriter::store_indexes(std::uint32_t document, std::size_t entries_covered,
                                     std::span<const std::vector<std::byte>> blobs) {
  const EntryShape& shape = stored_.header().shape;
  MEMLANE_EXPECTS(document < documents_.size() && !documents_[document].dropped);
  MEMLANE_EXPECTS(entries_covered <= documents_[document].entries);
  MEMLANE_EXPECTS(blobs.size() == shape.layers.size() * shape.kv_heads);
  std::vector<Record> records;
  for (std::size_t slot = 0; slot < blobs.size(); ++slot) {
    const IndexHead head = {document, static_cast<std::uint32_t>(slot), entries_covered};
    records.push_back({RecordType::index, head_bytes(head), blobs[slot]});
  }
  store(records);
}

void MemoryFileWriter::require_joint_indexes() const {
  if (stored_.version() >= kJointVersion) return;
  input_error(
      "{}: a memory file of version {} cannot hold an index over several documents together; bring it to version {} "
      "with `memlane memory compact` first, or index each document by itself (--each)",
      file_.path().string(), stored_.version(), kVersion);
}

void MemoryFileWriter::store_joint_index(std::span<const std::uint32_t> documents,
                                         std::span<const std::vector<std::byte>> blobs) {
  const EntryShape& shape = stored_.header().shape;
  MEMLANE_EXPECTS(blobs.size() == shape.layers.size() * shape.kv_heads);
  store_joint_index(documents, [&, next = blobs.begin()]() mutable { return *next++; });
}

void MemoryFileWriter::store_joint_index(std::span<const std::uint32_t> documents,
                                         const std::function<std::vector<std::byte>()>& next_blob) {
  require_joint_indexes();
  const EntryShape& shape = stored_.header().shape;
  MEMLANE_EXPECTS(!documents.empty());
  std::vector<CoveredDocument> covered;
  for (const std::uint32_t id : documents) {
    MEMLANE_EXPECTS(id < documents_.size() && documents_[id].complete && !documents_[id].dropped);
    MEMLANE_EXPECTS(documents_[id].entries > 0 && (covered.empty() || id > covered.back().document));
    covered.push_back({id, 0, documents_[id].entries});
  }
  std::vector<std::byte> blob;
  store(shape.layers.size() * shape.kv_heads, [&](std::size_t slot) {
    blob = next_blob();
    const JointIndexHead head = {static_cast<std::uint32_t>(slot), static_cast<std::uint32_t>(covered.size())};
    return Record{RecordType::joint_index, head_bytes(head, std::as_bytes(std::span(covered))), blob};
  });
}

void MemoryFileWriter::end_document(std::uint32_t document) {
  Document& target = unfinished(document);
  MEMLANE_EXPECTS(target.entries == target.tokens);
  const Record record = {RecordType::end_document, head_bytes(EndDocumentHead{document, 0, target.entries}), {}};
  store({&record, 1});
  target.complete = true;
}

void MemoryFileWriter::drop_documents(std::span<const std::uint32_t> documents) {
  if (stored_.version() < kDropVersion) {
    input_error(
        "{}: a memory file of version {} cannot say that a document was dropped; bring it to version {} with `memlane "
        "memory compact` first",
        file_.path().string(), stored_.version(), kVersion);
  }
  std::vector<Record> records;
  for (const std::uint32_t document : documents) {
    MEMLANE_EXPECTS(document < documents_.size() && !documents_[document].dropped);
    MEMLANE_EXPECTS(std::count(documents.begin(), documents.end(), document) == 1);
    records.push_back({RecordType::drop_document, head_bytes(DropDocumentHead{document, 0}), {}});
  }
  store(records);
  for (const std::uint32_t document : documents) documents_[document].dropped = true;
}

MemoryFileWriter::Record MemoryFileWriter::begin_record(std::uint32_t id, const DocumentInfo& info) {
  const BeginDocumentHead head = {id,
                                  static_cast<std::uint32_t>(info.name.size()),
                                  static_cast<std::uint32_t>(info.text_fingerprint.size()),
                                  0,
                                  info.text_bytes,
                                  info.tokens};
  const std::string texts = info.name + info.text_fingerprint;
  return {RecordType::begin_document, head_bytes(head, std::as_bytes(std::span(texts))), {}};
}

/// The records that say the same of a document under another id. Bodies lie in its own file.
std::vector<MemoryFileWriter::Record> MemoryFileWriter::records_of(const StoredDocument& source,
                                                                   const EntryShape& shape, std::uint32_t id) {
  std::vector<Record> records = {begin_record(id, source.info)};
  for (const StoredWindow& window : source.windows) {
    records.push_back({RecordType::window,
                       window_head(WindowHead{id, window.index, window.count}, window.ids, window.seen),
                       {window.entries, shape.segment_bytes(window.count)},
                       window.checksum});
  }
  for (std::size_t slot = 0; slot < source.indexes.blobs.size(); ++slot) {
    const IndexHead head = {id, static_cast<std::uint32_t>(slot), source.indexes.entries_covered};
    records.push_back(
        {RecordType::index, head_bytes(head), source.indexes.blobs[slot], source.indexes.checksums[slot]});
  }
  if (source.complete) {
    records.push_back({RecordType::end_document, head_bytes(EndDocumentHead{id, 0, source.entries()}), {}});
  }
  return records;
}

std::uint64_t MemoryFileWriter::copied_bytes(const StoredDocument& source, const EntryShape& shape) {
  std::uint64_t bytes = 0;
  for (const Record& record : records_of(source, shape, 0)) bytes += record.bytes();
  return bytes;
}

std::uint32_t MemoryFileWriter::copy_document(const StoredDocument& source, const Progress& progress) {
  MEMLANE_EXPECTS(!source.dropped);
  const auto id = static_cast<std::uint32_t>(documents_.size());
  store(records_of(source, stored_.header().shape, id), progress);
  documents_.push_back({source.info.tokens, source.entries(), static_cast<std::uint32_t>(source.windows.size()),
                        source.complete, false});
  return id;
}

bool MemoryFileWriter::discard_if_empty() {
  const auto has_windows = [](const Document& document) { return document.windows > 0; };
  if (!created_ || std::any_of(documents_.begin(), documents_.end(), has_windows) || !file_.is_at_its_path())
    return false;
  file_.remove();
  return true;
}

/// Appends records and commits them together. The order is the whole protocol: records reach the disk before the commit
/// that makes them part of the file, and that commit replaces the older of two, so that the newer one stands until it
/// is whole.
void MemoryFileWriter::store(std::span<const Record> records, const Progress& progress) {
  std::uint64_t needed = 0;
  for (const Record& record : records) needed += record.bytes();
  store(
      records.size(), [&](std::size_t i) { return records[i]; }, needed, progress);
}

/// record(i) is called once for each, when the one before is written. needed: bytes of all of them; 0 if nobody knows.
void MemoryFileWriter::store(std::size_t count, const std::function<Record(std::size_t)>& record, std::uint64_t needed,
                             const Progress& progress) {
  if (broken_) {
    input_error(
        "{}: an earlier write failed and could not be undone; run the command again: it continues from what is stored",
        file_.path().string());
  }
  Commit next = commit_;
  ++next.sequence;
  try {
    for (std::size_t i = 0; i < count; ++i) {
      const Record next_record = record(i);
      write_record(next_record, std::max(needed, next_record.bytes()), next);
      if (progress) progress(next.length - commit_.length);
    }
    file_.sync();
  } catch (...) {
    cut_tail();
    throw;
  }
  try {
    write_commit(next);
  } catch (...) {
    undo_commit();
    throw;
  }
  commit_ = next;
}

void MemoryFileWriter::write_record(const Record& record, std::uint64_t needed, Commit& next) {
  RecordHeader header{};
  header.magic = kRecordMagic;
  header.type = record.type;
  header.number = next.records;
  header.head_bytes = record.head.size();
  header.body_bytes = record.body.size();
  header.head_checksum = checksum(record.head);
  header.body_checksum = record.body_checksum ? *record.body_checksum : checksum(record.body);
  seal(header);

  std::vector<std::byte> front(sizeof header + round_up(record.head.size(), kAlignment));
  std::memcpy(front.data(), &header, sizeof header);
  std::memcpy(front.data() + sizeof header, record.head.data(), record.head.size());
  file_.write_at(next.length, front, needed);
  next.length += front.size();
  // The body is not copied: it may be an index of gigabytes.
  file_.write_at(next.length, record.body, needed);
  next.length += record.body.size();
  const std::array<std::byte, kAlignment> zeros{};
  const std::uint64_t padding = round_up(record.body.size(), kAlignment) - record.body.size();
  file_.write_at(next.length, std::span(zeros).first(padding), needed);
  next.length += padding;
  ++next.records;
  next.digest = extend_digest(next.digest, header);
}

void MemoryFileWriter::write_commit(const Commit& commit) {
  const CommitSlot slot = make_commit_slot(commit);
  file_.write_at(slot_offset(stored_.commits_offset(), commit.sequence), std::as_bytes(std::span(&slot, 1)),
                 sizeof slot);
  file_.sync();
}

/// After a commit failed, nobody knows which slot the disk holds. The records stay until it certainly holds the old
/// one.
void MemoryFileWriter::undo_commit() {
  try {
    Commit older = commit_;
    --older.sequence;  // what an older slot says beyond its number is never used
    write_commit(older);
  } catch (const InputError&) {
    broken_ = true;
    return;
  }
  cut_tail();
}

void MemoryFileWriter::cut_tail() {
  try {
    file_.truncate(commit_.length);
  } catch (const InputError&) {
    // Harmless: readers ignore what follows the committed bytes, and the next record overwrites it.
  }
}

}  // namespace memlane
