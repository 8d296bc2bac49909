#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <vector>

#include "memory/compaction.h"
#include "memory/document_choice.h"
#include "memory/memory_file_format.h"
#include "memory/memory_file_writer.h"
#include "tests/fuzz/targets.h"

namespace memlane::fuzz {

namespace {

using namespace format;

template <class Struct>
void store(std::vector<std::byte>& file, std::uint64_t offset, const Struct& value) {
  std::memcpy(file.data() + offset, &value, sizeof value);
}

/// Makes the checksums right, and the commit that of the records that follow each other: a fuzzer would never get past
/// them. Returns the first byte of the commit slots; 0 if there is no place for them.
std::uint64_t reseal_front(std::vector<std::byte>& file) {
  if (file.size() < sizeof(Preamble)) return 0;
  auto preamble = load<Preamble>(file);
  if (preamble.header_bytes > file.size() - sizeof preamble) return 0;
  preamble.magic = kMagic;
  preamble.header_checksum = checksum(std::span(file).subspan(sizeof preamble, preamble.header_bytes));
  seal(preamble);
  store(file, 0, preamble);
  const std::uint64_t commits = round_up(sizeof preamble + preamble.header_bytes, kBlock);
  return records_offset(commits) <= file.size() ? commits : 0;
}

void reseal(std::vector<std::byte>& file) {
  const std::uint64_t commits = reseal_front(file);
  if (commits == 0) return;
  Commit commit = {1, records_offset(commits), 0, load<Preamble>(file).checksum};
  while (file.size() - commit.length >= sizeof(RecordHeader)) {
    auto record = load<RecordHeader>(std::span(file).subspan(commit.length));
    const std::uint64_t left = file.size() - commit.length;
    if (record.magic != kRecordMagic || record.head_bytes > left || record.body_bytes > left ||
        record_bytes(record.head_bytes, record.body_bytes) > left) {
      break;
    }
    const std::uint64_t head = commit.length + sizeof record;
    const std::uint64_t body = head + round_up(record.head_bytes, kAlignment);
    record.head_checksum = checksum(std::span(file).subspan(head, record.head_bytes));
    record.body_checksum = checksum(std::span(file).subspan(body, record.body_bytes));
    seal(record);
    store(file, commit.length, record);
    commit.length += record_bytes(record.head_bytes, record.body_bytes);
    commit.digest = extend_digest(commit.digest, record);
    ++commit.records;
  }
  Commit older = commit;
  older.sequence = 0;
  for (const Commit& each : {older, commit}) {
    store(file, slot_offset(commits, each.sequence), make_commit_slot(each));
  }
}

/// What a reader that goes on with a document trusts of what the next window sees.
void use_seen(const MemoryFileHeader& header, const StoredDocument& document, std::span<const SeenWindow> seen) {
  const std::optional<std::size_t> kept = entries_seen(header);
  MEMLANE_EXPECTS(seen.empty() || kept);
  std::size_t entries = 0;
  for (const SeenWindow& each : seen) {
    MEMLANE_EXPECTS(each.index < document.windows.size() && each.weight >= 0 && each.weight <= 1);
    entries += document.windows[each.index].count;
  }
  MEMLANE_EXPECTS(entries <= kept.value_or(0));
}

/// Everything that opening a file promises.
void use(const MemoryFile& memory) {
  const EntryShape& shape = memory.header().shape;
  MEMLANE_EXPECTS(differences(memory.header(), memory.header()).empty());
  MEMLANE_EXPECTS(!list_of_documents(memory).empty() || memory.documents().empty());
  for (const StoredDocument& document : memory.documents()) {
    MEMLANE_EXPECTS(document.entries() <= document.info.tokens);
    MEMLANE_EXPECTS(!document.complete || document.dropped || document.entries() == document.info.tokens);
    for (const StoredWindow& window : document.windows) {
      MEMLANE_EXPECTS(window.count == window.ids.size() && window.count <= memory.header().window);
      use_seen(memory.header(), document, window.seen);
      const Segment segment(shape, window.count, window.entries);
      read_all(segment.bytes());
      const EntryBlock last = segment.block(shape.layers.size() - 1, shape.kv_heads - 1);
      read_all({static_cast<const std::byte*>(last.values), shape.value_bytes(window.count)});
    }
    for (const auto& blob : document.indexes.blobs) read_all(blob);
  }
  const StoredJointIndex& joint = memory.joint_index();
  MEMLANE_EXPECTS(joint.blobs.size() == (joint.empty() ? 0 : shape.layers.size() * shape.kv_heads));
  MEMLANE_EXPECTS(memory.is_joint_index_verified());
  for (const CoveredDocument& covered : joint.documents) {
    const StoredDocument& document = memory.documents().at(covered.document);
    MEMLANE_EXPECTS(document.complete && !document.dropped && document.entries() == covered.entries);
  }
  for (const auto& blob : joint.blobs) read_all(blob);
}

std::size_t kept_documents(const MemoryFile& memory) {
  const auto& documents = memory.documents();
  return static_cast<std::size_t>(
      std::count_if(documents.begin(), documents.end(), [](const StoredDocument& each) { return !each.dropped; }));
}

/// What comes after the windows of a document, if nobody attends to any of them.
std::vector<SeenWindow> seen_after(const MemoryFileHeader& header, const StoredDocument& document, std::size_t count) {
  AttendedWindows attended(entries_seen(header).value_or(0));
  std::vector<std::size_t> counts;
  if (!document.windows.empty()) {
    for (const SeenWindow& seen : document.windows.back().seen) counts.push_back(document.windows[seen.index].count);
    attended.resume(document.windows.back().seen, counts);
  }
  const std::vector<double> nothing(std::accumulate(counts.begin(), counts.end(), std::size_t{0}), 0.0);
  attended.read(static_cast<std::uint32_t>(document.windows.size()), {&count, 1}, nothing, count);
  return {attended.seen().begin(), attended.seen().end()};
}

/// Goes on with an unfinished document, if its windows are small.
void append(const std::filesystem::path& path) {
  constexpr std::size_t kSmall = std::size_t{1} << 20;
  MemoryFileWriter writer = MemoryFileWriter::append_to(path);
  const MemoryFileHeader& header = writer.stored().header();
  const bool evicts = entries_seen(header).has_value();
  if (header.shape.segment_bytes(evicts ? header.window : 1) > kSmall) return;
  for (const StoredDocument& document : writer.stored().documents()) {
    if (document.complete || document.dropped || document.entries() == document.info.tokens) continue;
    const std::size_t left = document.info.tokens - document.entries();
    const std::size_t count = evicts ? std::min(header.window, left) : 1;
    const std::vector<std::int32_t> ids(count, 7);
    const std::vector<SeenWindow> seen = evicts ? seen_after(header, document, count) : std::vector<SeenWindow>();
    writer.append_window(document.info.id, ids, Segment(header.shape, count), seen);
  }
  use(MemoryFile::open(path));
}

bool try_file(Input bytes) {
  const std::filesystem::path path = put("m", bytes);
  accepts([&] {
    MemoryFile memory = MemoryFile::open_heads(path);
    std::vector<std::uint32_t> all(memory.documents().size());
    std::iota(all.begin(), all.end(), 0U);
    memory.verify(all);
    memory.verify_joint_index();
    use(memory);
  });
  std::size_t documents = 0;
  const bool opened = accepts([&] {
    const MemoryFile memory = MemoryFile::open(path);
    use(memory);
    documents = kept_documents(memory);
  });
  if (!opened) return false;
  append(path);
  compact(path);
  const MemoryFile memory = MemoryFile::open(path);
  MEMLANE_EXPECTS(memory.documents().size() == documents && !gains_from_compaction(memory));
  use(memory);
  return true;
}

}  // namespace

bool memory_file(Input input) {
  const bool read = try_file(input);
  const auto bytes = std::as_bytes(input);
  std::vector<std::byte> resealed(bytes.begin(), bytes.end());
  reseal(resealed);
  if (std::equal(bytes.begin(), bytes.end(), resealed.begin())) return read;
  return try_file({reinterpret_cast<const std::uint8_t*>(resealed.data()), resealed.size()}) || read;
}

}  // namespace memlane::fuzz
