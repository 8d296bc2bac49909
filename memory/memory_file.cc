#include "memory/memory_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>

#include "kernels/error.h"
#include "memory/memory_file_format.h"
#include "memory/memory_file_records.h"

namespace memlane {

namespace {

using namespace format;

constexpr std::chrono::microseconds kLongestPause{2000};

/// The newest commit, if both slots are what a writer leaves: a half-written or lost one means damage, because sectors
/// are written whole. Reads each slot once, since a writer may be replacing one of them.
std::optional<Commit> newest_commit(std::span<const std::byte> file, std::uint64_t commits_offset) {
  std::array<Commit, 2> commits;
  for (std::uint64_t i = 0; i < 2; ++i) {
    const auto slot = load<CommitSlot>(file.subspan(slot_offset(commits_offset, i)));
    const bool valid = slot.magic == kCommitMagic && is_sealed(slot) && all_zero(slot.zeros);
    if (!valid || slot.commit.sequence % 2 != i) return std::nullopt;
    commits[i] = slot.commit;
  }
  if (commits[0].sequence > commits[1].sequence) std::swap(commits[0], commits[1]);
  const bool in_order = commits[1].sequence - commits[0].sequence == 1 && commits[0].length <= commits[1].length;
  if (!in_order || commits[0].length < records_offset(commits_offset)) return std::nullopt;
  return commits[1];
}

void expect_zeros_after_slots(std::span<const std::byte> file, std::uint64_t commits_offset,
                              const std::filesystem::path& path) {
  for (std::uint64_t i = 0; i < 2; ++i) {
    const std::uint64_t end = slot_offset(commits_offset, i) + sizeof(CommitSlot);
    if (!all_zero(file.subspan(end, kBlock - sizeof(CommitSlot)))) {
      damaged(path, fmt::format("bytes after commit slot {} are not zero", i));
    }
  }
}

}  // namespace

std::size_t StoredDocument::entries() const {
  return std::accumulate(windows.begin(), windows.end(), std::size_t{0},
                         [](std::size_t sum, const StoredWindow& window) { return sum + window.count; });
}

std::size_t StoredJointIndex::entries() const {
  return std::accumulate(documents.begin(), documents.end(), std::size_t{0},
                         [](std::size_t sum, const CoveredDocument& document) { return sum + document.entries; });
}

bool StoredJointIndex::covers(std::uint32_t document) const {
  return std::ranges::binary_search(documents, document, {}, &CoveredDocument::document);
}

MemoryFile MemoryFile::open(const std::filesystem::path& path) {
  return open(path, /*bodies=*/true);
}

MemoryFile MemoryFile::open_heads(const std::filesystem::path& path) {
  return open(path, /*bodies=*/false);
}

MemoryFile MemoryFile::open(const std::filesystem::path& path, bool bodies) {
  std::error_code unknown;
  if (const auto status = std::filesystem::status(path, unknown); exists(status) && !is_regular_file(status)) {
    // Before it is opened: opening a pipe would wait for somebody to write to it.
    input_error("{}: this is {}; name a memory file", path.string(),
                is_directory(status) ? "a folder" : "no regular file");
  }
  // A writer at work may be seen halfway through replacing a slot, for less than a microsecond: look again, a little
  // later each time. Damage stays. It may also commit more than there was when the file was mapped; then it has to be
  // mapped again.
  auto pause = std::chrono::microseconds(50);
  std::uint64_t promised = 0;
  while (true) {
    MemoryFile memory;
    memory.file_ = MappedFile(path, "memory file");
    const std::span<const std::byte> file = memory.file_.bytes();
    if (file.size() < promised) truncated(path, file.size(), promised);
    ParsedHeader parsed = parse_header(file, path);
    const std::optional<Commit> commit = newest_commit(file, parsed.commits_offset);
    if (!commit) {
      if (pause > kLongestPause) damaged(path, "its commit slots are not valid");
      std::this_thread::sleep_for(pause);
      pause *= 2;
      continue;
    }
    if (commit->length > file.size()) {
      promised = commit->length;
      continue;
    }
    expect_zeros_after_slots(file, parsed.commits_offset, path);
    memory.header_ = std::move(parsed.header);
    memory.commits_offset_ = parsed.commits_offset;
    memory.version_ = parsed.version;
    memory.commit_ = *commit;
    if (!bodies) memory.expect_scattered_reads();  // or the system reads much of each body with the head before it
    const auto records = split_records(file, records_offset(parsed.commits_offset), *commit, parsed.digest, path);
    verify_checksums(records, bodies ? Parts::heads_and_bodies : Parts::heads, path);
    Contents contents = interpret(records, memory.header_, memory.version_, path);
    memory.documents_ = std::move(contents.documents);
    memory.joint_index_ = std::move(contents.joint_index);
    memory.verified_.assign(memory.documents_.size(), bodies);
    memory.joint_index_verified_ = bodies;
    return memory;
  }
}

void MemoryFile::verify(std::span<const std::uint32_t> documents) {
  std::vector<NamedBody> bodies;
  for (const std::uint32_t id : documents) {
    if (verified_.at(id)) continue;
    const StoredDocument& document = documents_[id];
    for (const StoredWindow& window : document.windows) {
      bodies.push_back({fmt::format("window {} of document {}", window.index, id),
                        {window.entries, header_.shape.segment_bytes(window.count)},
                        window.checksum});
    }
    for (std::size_t slot = 0; slot < document.indexes.blobs.size(); ++slot) {
      bodies.push_back({fmt::format("key index {} of document {}", slot, id), document.indexes.blobs[slot],
                        document.indexes.checksums[slot]});
    }
  }
  expect_reads_in_order(file_.bytes());
  verify_bodies(bodies, file_.bytes(), path());
  for (const std::uint32_t id : documents) verified_[id] = true;
}

void MemoryFile::verify_joint_index() {
  if (is_joint_index_verified()) return;
  std::vector<NamedBody> bodies;
  for (std::size_t slot = 0; slot < joint_index_.blobs.size(); ++slot) {
    bodies.push_back({fmt::format("joint index {}", slot), joint_index_.blobs[slot], joint_index_.checksums[slot]});
  }
  expect_reads_in_order(file_.bytes());
  verify_bodies(bodies, file_.bytes(), path());
  joint_index_verified_ = true;
}

}  // namespace memlane
