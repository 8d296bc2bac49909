#include "memory/memory_file_records.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace memlane::format {

namespace {

/// Below this, starting threads costs more than they save.
constexpr std::uint64_t kBytesPerThread = std::uint64_t{16} << 20;
constexpr std::uint64_t kBytesToLetGo = std::uint64_t{4} << 20;
constexpr std::uint64_t kMostThreads = 8;

std::string at(const RecordView& record) {
  return fmt::format("record {} at byte {}", record.header.number, record.offset);
}

/// The record that starts at `offset`; every length is compared with the bytes left before anything is computed from
/// it.
RecordView record_at(std::span<const std::byte> committed, std::uint64_t offset, std::uint64_t number,
                     const std::filesystem::path& path) {
  const std::uint64_t left = committed.size() - offset;
  const auto fail = [&](std::string_view reason) {
    damaged(path, fmt::format("record {} at byte {}: {}", number, offset, reason));
  };
  if (left < sizeof(RecordHeader)) fail("it does not fit before the committed end");
  const auto header = load<RecordHeader>(committed.subspan(offset));
  if (header.magic != kRecordMagic || !is_sealed(header)) fail("the checksum of its header does not match");
  if (header.number != number) fail(fmt::format("it says that it is record {}", header.number));
  if (header.zero != 0) fail("unknown fields in its header");

  const std::uint64_t parts = left - sizeof header;
  if (header.head_bytes > parts || round_up(header.head_bytes, kAlignment) > parts) fail("its head runs past the end");
  const std::uint64_t head_room = round_up(header.head_bytes, kAlignment);
  if (header.body_bytes > parts - head_room || round_up(header.body_bytes, kAlignment) > parts - head_room) {
    fail("its body runs past the end");
  }
  const std::uint64_t head = offset + sizeof header;
  return {header, offset, committed.subspan(head, header.head_bytes),
          committed.subspan(head + head_room, header.body_bytes)};
}

/// Whether a part of a record has its checksum, and zeros after it to the next.
bool is_intact(std::span<const std::byte> part, std::uint64_t expected) {
  const std::size_t padding = round_up(part.size(), kAlignment) - part.size();
  return checksum(part) == expected && all_zero({part.data() + part.size(), padding});
}

/// The first of `count` things that is not intact; `count` if all are. bytes: of all together.
template <class IsIntact>
std::size_t first_damaged(std::size_t count, std::uint64_t bytes, const IsIntact& is_intact) {
  const std::uint64_t available = std::max(1U, std::thread::hardware_concurrency());
  const std::uint64_t threads =
      std::clamp<std::uint64_t>(bytes / kBytesPerThread, 1, std::min(available, kMostThreads));
  std::atomic<std::size_t> next = 0;
  std::atomic<std::size_t> first = count;
  const auto work = [&] {
    // They are taken in order, so when a damaged one is found every earlier one has been or is being looked at.
    for (std::size_t i = next++; i < count && i < first; i = next++) {
      if (is_intact(i)) continue;
      std::size_t seen = first;
      while (i < seen && !first.compare_exchange_weak(seen, i)) {
      }
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (std::uint64_t i = 1; i < threads; ++i) helpers.emplace_back(work);
    work();
  }
  return first;
}

/// Reads records in order, and knows what may come next.
class Interpreter {
 public:
  Interpreter(const MemoryFileHeader& header, std::uint32_t version, const std::filesystem::path& path)
      : shape_(header.shape),
        window_(header.window),
        entries_seen_(entries_seen(header)),
        version_(version),
        index_slots_(header.shape.layers.size() * header.shape.kv_heads),
        path_(path) {
    if (entries_seen_ && version_ < kSeenVersion) {
      damaged(path_, fmt::format("version {} cannot hold what its header promises, what windows saw", version_));
    }
  }

  void read(const RecordView& record) {
    record_ = &record;
    expect(next_slot_ == 0 || record.header.type == set_type_, "an incomplete set of key indexes before it");
    switch (record.header.type) {
      case RecordType::begin_document:
        return begin_document();
      case RecordType::window:
        return window();
      case RecordType::index:
        return index();
      case RecordType::end_document:
        return end_document();
      case RecordType::drop_document:
        if (version_ >= kDropVersion) return drop_document();
        break;
      case RecordType::joint_index:
        if (version_ >= kJointVersion) return joint_index();
        break;
    }
    damaged(path_, fmt::format("{}: unknown type {}", at(record), static_cast<std::uint32_t>(record.header.type)));
  }

  Contents finish() {
    if (next_slot_ != 0) damaged(path_, "it ends within a set of key indexes");
    for (Progress& document : documents_) {
      const std::vector<StoredWindow>& windows = document.stored.windows;
      if (entries_seen_ && !windows.empty() && windows.back().seen.empty()) {
        damaged(path_, fmt::format("document {} ends within a window", document.stored.info.id));
      }
      contents_.documents.push_back(std::move(document.stored));
    }
    return std::move(contents_);
  }

 private:
  struct Progress {
    StoredDocument stored;
    std::uint64_t entries = 0;
    // Where the least attended windows are evicted:
    std::vector<std::size_t> counts;        // [windows]: entries
    std::size_t first = 0;                  // part of the window that is being read
    std::span<const SeenWindow> seen = {};  // by it
  };

  void expect(bool condition, std::string_view otherwise) const {
    if (!condition) damaged(path_, fmt::format("{}: {}", at(*record_), otherwise));
  }

  void expect_no(const std::string& fault) const { expect(fault.empty(), fault); }

  template <class Head>
  Head head() const {
    expect(record_->head.size() >= sizeof(Head), "its head is too short");
    return load<Head>(record_->head);
  }

  /// The document that the record belongs to.
  Progress& document(std::uint32_t id) {
    expect(id < documents_.size(), "it belongs to an unknown document");
    expect(!documents_[id].stored.dropped, "it belongs to a document that was dropped");
    documents_[id].stored.file_bytes += bytes_of_record();
    return documents_[id];
  }
  std::uint64_t bytes_of_record() const { return record_bytes(record_->head.size(), record_->body.size()); }

  void begin_document() {
    const auto head = this->head<BeginDocumentHead>();
    expect(head.document == documents_.size(), "documents are out of order");
    expect(head.zero == 0 && record_->body.empty(), "unknown fields");
    expect(head.name_bytes <= kLongestName && head.fingerprint_bytes <= kLongestName,
           "the document's name is too long");
    expect(record_->head.size() == sizeof head + head.name_bytes + head.fingerprint_bytes, "its head has a wrong size");
    const char* texts = reinterpret_cast<const char*>(record_->head.data()) + sizeof head;
    Progress progress;
    progress.stored.info = {head.document, std::string(texts, head.name_bytes),
                            std::string(texts + head.name_bytes, head.fingerprint_bytes), head.text_bytes, head.tokens};
    progress.stored.file_bytes = bytes_of_record();
    documents_.push_back(std::move(progress));
  }

  void window() {
    const auto head = this->head<WindowHead>();
    Progress& document = this->document(head.document);
    std::vector<StoredWindow>& windows = document.stored.windows;
    expect(!document.stored.complete, "a window after the document's end");
    expect(head.index == windows.size(), "windows are out of order");
    expect(head.count >= 1 && head.count <= window_, "its number of entries is out of bounds");
    const std::size_t ids_end = sizeof head + head.count * sizeof(std::int32_t);
    expect(entries_seen_ ? record_->head.size() >= ids_end : record_->head.size() == ids_end,
           "not one token id for each entry");
    expect(record_->body.size() == shape_.segment_bytes(head.count), "its entries have a wrong size");
    expect(head.count <= document.stored.info.tokens - document.entries, "more entries than the document has tokens");
    const auto* first = reinterpret_cast<const std::int32_t*>(record_->head.data() + sizeof head);
    const std::span<const std::int32_t> ids(first, head.count);
    expect(std::all_of(ids.begin(), ids.end(), [](std::int32_t id) { return id >= 0; }), "a negative token id");
    windows.push_back({head.index, ids, record_->body.data(), head.count, record_->header.body_checksum});
    document.entries += head.count;
    if (entries_seen_) windows.back().seen = seen_after(document, record_->head.subspan(ids_end));
  }

  /// What follows the ids in the head of a document's newest window: nothing until a window ends.
  std::span<const SeenWindow> seen_after(Progress& document, std::span<const std::byte> rest) {
    const StoredWindow& window = document.stored.windows.back();
    document.counts.push_back(window.count);
    expect((document.entries - window.count) % window_ + window.count <= window_, "it is part of two windows");
    const bool ends = document.entries % window_ == 0 || document.entries == document.stored.info.tokens;
    expect(ends != rest.empty(), ends ? "it does not say what the next window sees" : "unknown fields");
    if (!ends) return {};
    const std::size_t padding = window.count % 2 * sizeof(std::int32_t);  // 16 bytes and the ids are before it
    expect(rest.size() > padding && (rest.size() - padding) % sizeof(SeenWindow) == 0, "its head has a wrong size");
    expect(all_zero(rest.first(padding)), "bytes after its ids are not zero");
    const auto* windows = reinterpret_cast<const SeenWindow*>(rest.data() + padding);
    const std::span<const SeenWindow> seen(windows, (rest.size() - padding) / sizeof(SeenWindow));
    expect_no(fault_of(seen, document.seen, document.first, document.counts, *entries_seen_));
    document.seen = seen;
    document.first = document.counts.size();
    return seen;
  }

  void index() {
    const auto head = this->head<IndexHead>();
    Progress& document = this->document(head.document);
    expect(record_->head.size() == sizeof head, "its head has a wrong size");
    if (next_slot_ == 0) {
      set_of_ = head.document;
      set_ = {head.entries_covered, {}, {}};
      expect(head.entries_covered <= document.entries, "its index covers more entries than there are");
    }
    expect_slot(head.slot, RecordType::index);
    expect(head.document == set_of_ && head.entries_covered == set_.entries_covered,
           "a key index of another set than those before it");
    set_.blobs.push_back(record_->body);
    set_.checksums.push_back(record_->header.body_checksum);
    if (set_ends()) document.stored.indexes = std::move(set_);
  }

  void joint_index() {
    const auto head = this->head<JointIndexHead>();
    expect(head.documents >= 1 && head.documents <= documents_.size(), "it covers no or too many documents");
    expect(record_->head.size() == sizeof head + head.documents * sizeof(CoveredDocument), "its head has a wrong size");
    const auto* first = reinterpret_cast<const CoveredDocument*>(record_->head.data() + sizeof head);
    const std::span<const CoveredDocument> covered(first, head.documents);
    if (next_slot_ == 0) {
      for (std::size_t i = 0; i < covered.size(); ++i) {
        expect(i == 0 || covered[i].document > covered[i - 1].document,
               "the documents that it covers are out of order");
        expect_covers_whole(covered[i]);
      }
      joint_set_ = {{covered.begin(), covered.end()}, {}, {}, 0};
    }
    expect_slot(head.slot, RecordType::joint_index);
    expect(std::ranges::equal(covered, joint_set_.documents), "a joint index of another set than those before it");
    joint_set_.blobs.push_back(record_->body);
    joint_set_.checksums.push_back(record_->header.body_checksum);
    joint_set_.file_bytes += bytes_of_record();
    if (set_ends()) contents_.joint_index = std::exchange(joint_set_, {});
  }

  void expect_covers_whole(const CoveredDocument& covered) const {
    expect(covered.zero == 0, "unknown fields");
    expect(covered.document < documents_.size(), "it covers an unknown document");
    const Progress& document = documents_[covered.document];
    expect(!document.stored.dropped, "it covers a document that was dropped");
    expect(document.stored.complete, "it covers a document before its end");
    expect(covered.entries >= 1 && covered.entries == document.entries, "it covers not all entries of a document");
  }

  /// The next record of a set of one for each memory layer and head, all in one commit.
  void expect_slot(std::uint32_t slot, RecordType type) {
    expect(slot == next_slot_, "key indexes are out of order");
    set_type_ = type;
  }
  bool set_ends() {
    next_slot_ = (next_slot_ + 1) % index_slots_;
    return next_slot_ == 0;
  }

  void end_document() {
    const auto head = this->head<EndDocumentHead>();
    Progress& document = this->document(head.document);
    expect(record_->head.size() == sizeof head && head.zero == 0 && record_->body.empty(), "unknown fields");
    expect(!document.stored.complete, "the document ended before");
    expect(head.entries == document.entries && head.entries == document.stored.info.tokens,
           "the document ends before all its tokens are there");
    document.stored.complete = true;
  }

  void drop_document() {
    const auto head = this->head<DropDocumentHead>();
    expect(record_->head.size() == sizeof head && head.zero == 0 && record_->body.empty(), "unknown fields");
    StoredDocument& dropped = document(head.document).stored;
    dropped.dropped = true;
    dropped.windows = {};
    documents_[head.document].counts = {};
    dropped.indexes = {};
    if (contents_.joint_index.covers(head.document)) contents_.joint_index = {};
  }

  const EntryShape& shape_;
  std::size_t window_;
  std::optional<std::size_t> entries_seen_;
  std::uint32_t version_;
  std::size_t index_slots_;
  const std::filesystem::path& path_;
  const RecordView* record_ = nullptr;
  std::vector<Progress> documents_;
  Contents contents_;  // its documents when all is read
  // The set of key indexes being read, of a document or joint ones.
  RecordType set_type_ = RecordType::index;
  StoredIndexes set_;
  std::uint32_t set_of_ = 0;
  StoredJointIndex joint_set_;
  std::size_t next_slot_ = 0;
};

}  // namespace

std::vector<RecordView> split_records(std::span<const std::byte> file, std::uint64_t begin, const Commit& commit,
                                      std::uint64_t digest, const std::filesystem::path& path) {
  const auto committed = file.first(commit.length);
  std::vector<RecordView> records;
  for (std::uint64_t offset = begin; offset < commit.length;) {
    RecordView record = record_at(committed, offset, records.size(), path);
    digest = extend_digest(digest, record.header);
    offset += record_bytes(record.head.size(), record.body.size());
    records.push_back(record);
  }
  if (records.size() != commit.records || digest != commit.digest) {
    damaged(path, "its records are not those that were committed");
  }
  return records;
}

void verify_checksums(std::span<const RecordView> records, Parts parts, const std::filesystem::path& path) {
  const bool bodies = parts == Parts::heads_and_bodies;
  std::uint64_t bytes = 0;
  for (const RecordView& record : records) bytes += record.head.size() + (bodies ? record.body.size() : 0);
  const std::size_t first = first_damaged(records.size(), bytes, [&](std::size_t i) {
    const RecordView& record = records[i];
    const bool intact = is_intact(record.head, record.header.head_checksum) &&
                        (!bodies || is_intact(record.body, record.header.body_checksum));
    if (bodies && bytes >= kBytesToLetGo) let_go(record.body);  // or the file counts as this process's memory, whole
    return intact;
  });
  if (first < records.size()) damaged(path, fmt::format("{}: its checksum does not match", at(records[first])));
}

void verify_bodies(std::span<const NamedBody> bodies, std::span<const std::byte> file,
                   const std::filesystem::path& path) {
  std::uint64_t bytes = 0;
  for (const NamedBody& body : bodies) bytes += body.bytes.size();
  const std::size_t first = first_damaged(bodies.size(), bytes, [&](std::size_t i) {
    const bool intact = is_intact(bodies[i].bytes, bodies[i].checksum);
    if (bytes >= kBytesToLetGo) let_go(bodies[i].bytes);
    return intact;
  });
  if (first == bodies.size()) return;
  damaged(path, fmt::format("{} at byte {}: its checksum does not match", bodies[first].of,
                            bodies[first].bytes.data() - file.data()));
}

Contents interpret(std::span<const RecordView> records, const MemoryFileHeader& header, std::uint32_t version,
                   const std::filesystem::path& path) {
  Interpreter interpreter(header, version, path);
  for (const RecordView& record : records) interpreter.read(record);
  return interpreter.finish();
}

}  // namespace memlane::format
