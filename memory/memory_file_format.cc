#include "memory/memory_file_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "memory/memory_file_header.h"

namespace memlane::format {

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte byte) { return byte == std::byte{0}; });
}

std::uint64_t extend_digest(std::uint64_t digest, const RecordHeader& record) {
  const std::array<std::uint64_t, 2> both = {digest, record.checksum};
  return checksum(std::as_bytes(std::span(both)));
}

CommitSlot make_commit_slot(const Commit& commit) {
  CommitSlot slot{};
  slot.magic = kCommitMagic;
  slot.commit = commit;
  seal(slot);
  return slot;
}

std::optional<std::size_t> entries_seen(const MemoryFileHeader& header) {
  const auto found = header.settings.find(kEviction);
  if (found == header.settings.end()) return std::nullopt;
  const std::optional<EvictionPolicy> policy = eviction_policy(found->second);
  const bool says = policy && policy->rule == EvictionPolicy::Rule::least_attended;
  return says && policy->entries % header.window == 0 ? std::optional(policy->entries) : std::nullopt;
}

std::vector<std::byte> empty_file(const MemoryFileHeader& header, std::uint32_t version) {
  const std::string json = header_to_json(header);
  MEMLANE_EXPECTS(json.size() <= kLargestHeader);
  Preamble preamble{};
  preamble.magic = kMagic;
  preamble.version = version;
  preamble.header_bytes = static_cast<std::uint32_t>(json.size());
  preamble.header_checksum = checksum(std::as_bytes(std::span(json)));
  seal(preamble);

  const std::uint64_t commits_offset = round_up(sizeof preamble + json.size(), kBlock);
  std::vector<std::byte> file(records_offset(commits_offset));
  std::memcpy(file.data(), &preamble, sizeof preamble);
  std::memcpy(file.data() + sizeof preamble, json.data(), json.size());
  for (std::uint64_t sequence = 0; sequence < 2; ++sequence) {
    const CommitSlot slot = make_commit_slot({sequence, file.size(), /*records=*/0, preamble.checksum});
    std::memcpy(file.data() + slot_offset(commits_offset, sequence), &slot, sizeof slot);
  }
  return file;
}

ParsedHeader parse_header(std::span<const std::byte> file, const std::filesystem::path& path) {
  if (file.size() < kMagic.size() || std::memcmp(file.data(), kMagic.data(), kMagic.size()) != 0) {
    input_error("{}: not a memory file ({}); name a file that `memlane ingest` wrote", path.string(),
                file.empty() ? "it is empty" : "it does not begin as one");
  }
  if (file.size() < sizeof(Preamble)) truncated(path, file.size(), sizeof(Preamble));
  const auto preamble = load<Preamble>(file);
  if (preamble.version < kOldestVersion || preamble.version > kVersion) {
    input_error(
        "{}: memory file of version {}, but this memlane reads versions {} to {}; ingest the documents again, or use "
        "the memlane that wrote it",
        path.string(), preamble.version, kOldestVersion, kVersion);
  }
  if (!is_sealed(preamble)) damaged(path, "the checksum of its first 64 bytes does not match");
  if (!all_zero(preamble.zeros)) damaged(path, "unknown fields in its first 64 bytes");
  if (preamble.header_bytes > kLargestHeader) {
    damaged(path, fmt::format("a header of {} bytes, expected at most {}", preamble.header_bytes, kLargestHeader));
  }
  const std::uint64_t commits_offset = round_up(sizeof preamble + preamble.header_bytes, kBlock);
  if (file.size() < records_offset(commits_offset)) truncated(path, file.size(), records_offset(commits_offset));

  const auto json = file.subspan(sizeof preamble, preamble.header_bytes);
  const std::uint64_t end = sizeof preamble + preamble.header_bytes;
  if (checksum(json) != preamble.header_checksum) damaged(path, "the checksum of its header does not match");
  if (!all_zero(file.subspan(end, commits_offset - end))) damaged(path, "bytes after its header are not zero");
  MemoryFileHeader header = header_from_json({reinterpret_cast<const char*>(json.data()), json.size()}, path);
  check_header(header, path);
  return {std::move(header), preamble.version, commits_offset, preamble.checksum};
}

void damaged(const std::filesystem::path& path, const std::string& reason) {
  input_error("{}: the memory file is damaged: {}; restore a copy of it, or ingest the documents again", path.string(),
              reason);
}

void truncated(const std::filesystem::path& path, std::uint64_t bytes, std::uint64_t expected) {
  input_error(
      "{}: the memory file is truncated: {} bytes, {} expected; restore a copy of it, or ingest the documents again",
      path.string(), bytes, expected);
}

}  // namespace memlane::format
