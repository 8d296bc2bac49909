#include "memory/memory_file_writer.h"

#include <algorithm>
#include <cstring>
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
};

namespace {

template <class Head>
std::vector<std::byte> head_bytes(const Head& head, std::span<const std::byte> rest = {}) {
  std::vector<std::byte> bytes(sizeof head + rest.size());
  std::memcpy(bytes.data(), &head, sizeof head);
  if (!rest.empty()) std::memcpy(bytes.data() + sizeof head, rest.data(), rest.size());
  return bytes;
}

}  // namespace

MemoryFileWriter::MemoryFileWriter(WritableFile file, MemoryFile stored, bool created)
    : file_(std::move(file)), stored_(std::move(stored)), created_(created), commit_(stored_.commit()) {
  for (const StoredDocument& document : stored_.documents()) {
    documents_.push_back({document.info.tokens, document.entries(), static_cast<std::uint32_t>(document.windows.size()),
                          document.complete});
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
  const BeginDocumentHead head = {id,
                                  static_cast<std::uint32_t>(info.name.size()),
                                  static_cast<std::uint32_t>(info.text_fingerprint.size()),
                                  0,
                                  info.text_bytes,
                                  info.tokens};
  const std::string texts = info.name + info.text_fingerprint;
  const Record record = {RecordType::begin_document, head_bytes(head, std::as_bytes(std::span(texts))), {}};
  store({&record, 1});
  documents_.push_back({info.tokens, 0, 0, false});
  return id;
}

MemoryFileWriter::Document& MemoryFileWriter::unfinished(std::uint32_t document) {
  MEMLANE_EXPECTS(document < documents_.size() && !documents_[document].complete);
  return documents_[document];
}

void MemoryFileWriter::append_window(std::uint32_t document, std::span<const std::int32_t> ids,
                                     std::span<const Segment> segments) {
  Document& target = unfinished(document);
  const MemoryFileHeader& header = stored_.header();
  MEMLANE_EXPECTS(ids.size() <= header.window && ids.size() <= target.tokens - target.entries);
  MEMLANE_EXPECTS(std::all_of(ids.begin(), ids.end(), [](std::int32_t id) { return id >= 0; }));
  std::vector<Record> records;
  std::size_t entries = 0;
  for (const Segment& segment : segments) {
    MEMLANE_EXPECTS(entries + segment.count() <= ids.size());
    MEMLANE_EXPECTS(segment.bytes().size() == header.shape.segment_bytes(segment.count()));
    const auto index = target.windows + static_cast<std::uint32_t>(records.size());
    const WindowHead head = {document, index, segment.count()};
    const auto its_ids = std::as_bytes(ids.subspan(entries, segment.count()));
    records.push_back({RecordType::window, head_bytes(head, its_ids), segment.bytes()});
    entries += segment.count();
  }
  MEMLANE_EXPECTS(entries == ids.size());
  store(records);
  target.windows += static_cast<std::uint32_t>(records.size());
  target.entries += entries;
}

void MemoryFileWriter::store_indexes(std::uint32_t document, std::size_t entries_covered,
                                     std::span<const std::vector<std::byte>> blobs) {
  const EntryShape& shape = stored_.header().shape;
  MEMLANE_EXPECTS(document < documents_.size() && entries_covered <= documents_[document].entries);
  MEMLANE_EXPECTS(blobs.size() == shape.layers.size() * shape.kv_heads);
  std::vector<Record> records;
  for (std::size_t slot = 0; slot < blobs.size(); ++slot) {
    const IndexHead head = {document, static_cast<std::uint32_t>(slot), entries_covered};
    records.push_back({RecordType::index, head_bytes(head), blobs[slot]});
  }
  store(records);
}

void MemoryFileWriter::end_document(std::uint32_t document) {
  Document& target = unfinished(document);
  MEMLANE_EXPECTS(target.entries == target.tokens);
  const Record record = {RecordType::end_document, head_bytes(EndDocumentHead{document, 0, target.entries}), {}};
  store({&record, 1});
  target.complete = true;
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
void MemoryFileWriter::store(std::span<const Record> records) {
  if (broken_) {
    input_error(
        "{}: an earlier write failed and could not be undone; run the command again: it continues from what is stored",
        file_.path().string());
  }
  std::uint64_t needed = 0;
  for (const Record& record : records) needed += record_bytes(record.head.size(), record.body.size());
  Commit next = commit_;
  ++next.sequence;
  try {
    for (const Record& record : records) write_record(record, needed, next);
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
  header.body_checksum = checksum(record.body);
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
