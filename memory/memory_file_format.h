#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/error.h"
#include "memory/hash.h"
#include "memory/memory_file.h"

/// How a memory file is laid out in bytes; docs/memory-file.md describes the same for readers in other languages.
///
///   [preamble 64][header JSON][zeros]  to a multiple of 4096
///   [commit slot 512][zeros] ×2        4096 each
///   [record] …                         each a multiple of 64
///
/// Numbers are little-endian and structs are copied as they are.
namespace memlane::format {

static_assert(std::endian::native == std::endian::little, "memory files are mapped, and little-endian");

inline constexpr std::uint32_t kVersion = 4;        // of files that are made now
inline constexpr std::uint32_t kOldestVersion = 1;  // that can be read and appended to
inline constexpr std::uint32_t kDropVersion = 2;    // that brought records of type drop_document
inline constexpr std::uint32_t kSeenVersion = 3;    // that brought what the next window sees
inline constexpr std::uint32_t kJointVersion = 4;   // that brought records of type joint_index
inline constexpr std::size_t kAlignment = 64;       // of records and their parts; what Segment needs
inline constexpr std::size_t kBlock = 4096;  // of the header and the commit slots: each has a disk block to itself
inline constexpr std::size_t kLargestHeader = std::size_t{256} << 10;
inline constexpr std::size_t kLongestName = 4096;

constexpr std::uint64_t round_up(std::uint64_t bytes, std::uint64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

struct Preamble {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t header_bytes;     // of JSON
  std::uint64_t header_checksum;  // of those bytes
  std::array<std::byte, 32> zeros;
  std::uint64_t checksum;  // of the 56 bytes before
};
static_assert(sizeof(Preamble) == 64);
inline constexpr std::array<char, 8> kMagic = {'M', 'E', 'M', 'L', 'A', 'N', 'E', '\0'};

/// The only bytes of a file that ever change. A slot is one sector, which disks write whole or not at all.
struct CommitSlot {
  std::array<char, 8> magic;
  Commit commit;
  std::array<std::byte, 464> zeros;
  std::uint64_t checksum;  // of the 504 bytes before
};
static_assert(sizeof(CommitSlot) == 512 && sizeof(Commit) == 32 && std::is_trivially_copyable_v<CommitSlot>);
inline constexpr std::array<char, 8> kCommitMagic = {'M', 'L', 'C', 'O', 'M', 'M', 'I', 'T'};

enum class RecordType : std::uint32_t {
  begin_document = 1,
  window = 2,
  index = 3,
  end_document = 4,
  drop_document = 5,
  joint_index = 6
};

/// A record is this header, a head (small: numbers, names, ids) and a body (bulk: entries, an index), each followed by
/// zeros to a multiple of 64.
struct RecordHeader {
  std::array<char, 4> magic;
  RecordType type;
  std::uint64_t number;  // 0, 1, 2, … through the file
  std::uint64_t head_bytes;
  std::uint64_t body_bytes;
  std::uint64_t head_checksum;
  std::uint64_t body_checksum;
  std::uint64_t zero;
  std::uint64_t checksum;  // of the 56 bytes before
};
static_assert(sizeof(RecordHeader) == 64);
inline constexpr std::array<char, 4> kRecordMagic = {'M', 'L', 'R', 'C'};

/// Bytes of a record in the file.
constexpr std::uint64_t record_bytes(std::uint64_t head_bytes, std::uint64_t body_bytes) {
  return sizeof(RecordHeader) + round_up(head_bytes, kAlignment) + round_up(body_bytes, kAlignment);
}

/// Heads. Names and ids follow them directly; ids are followed by zeros to a multiple of 8 and what the next window
/// sees (SeenWindow), where a window ends and the least attended are evicted.
struct BeginDocumentHead {
  std::uint32_t document;
  std::uint32_t name_bytes;
  std::uint32_t fingerprint_bytes;
  std::uint32_t zero;
  std::uint64_t text_bytes;
  std::uint64_t tokens;
};
static_assert(sizeof(BeginDocumentHead) == 32);
struct WindowHead {
  std::uint32_t document;
  std::uint32_t index;
  std::uint64_t count;
};
static_assert(sizeof(WindowHead) == 16);
struct IndexHead {
  std::uint32_t document;
  std::uint32_t slot;  // layer slot * kv heads + kv head
  std::uint64_t entries_covered;
};
static_assert(sizeof(IndexHead) == 16);
struct EndDocumentHead {
  std::uint32_t document;
  std::uint32_t zero;
  std::uint64_t entries;
};
static_assert(sizeof(EndDocumentHead) == 16);
struct DropDocumentHead {
  std::uint32_t document;
  std::uint32_t zero;
};
static_assert(sizeof(DropDocumentHead) == 8);
/// Followed by the documents covered, as CoveredDocument.
struct JointIndexHead {
  std::uint32_t slot;       // as in IndexHead
  std::uint32_t documents;  // that follow
};
static_assert(sizeof(JointIndexHead) == 8);

template <class Struct>
std::span<const std::byte> sealed_bytes(const Struct& sealed) {
  return std::as_bytes(std::span(&sealed, 1)).first(sizeof(Struct) - sizeof(std::uint64_t));
}

/// Fills in the last 8 bytes of a struct: the checksum of those before.
template <class Struct>
void seal(Struct& sealed) {
  sealed.checksum = checksum(sealed_bytes(sealed));
}

template <class Struct>
bool is_sealed(const Struct& sealed) {
  return sealed.checksum == checksum(sealed_bytes(sealed));
}

/// A struct at the start of bytes that are large enough.
template <class Struct>
Struct load(std::span<const std::byte> bytes) {
  MEMLANE_EXPECTS(bytes.size() >= sizeof(Struct));
  Struct loaded;
  std::memcpy(&loaded, bytes.data(), sizeof loaded);
  return loaded;
}

bool all_zero(std::span<const std::byte> bytes);

/// The digest of a file that grows by a record.
std::uint64_t extend_digest(std::uint64_t digest, const RecordHeader& record);

CommitSlot make_commit_slot(const Commit& commit);
/// Where slot 0 or 1 starts in a file whose slots start at `commits_offset`.
constexpr std::uint64_t slot_offset(std::uint64_t commits_offset, std::uint64_t sequence) {
  return commits_offset + sequence % 2 * kBlock;
}
constexpr std::uint64_t records_offset(std::uint64_t commits_offset) {
  return commits_offset + 2 * kBlock;
}

/// Throws InputError ("PATH: REASON") if a header is not one that a file may hold: sizes out of bounds, unknown names.
void check_header(const MemoryFileHeader& header, const std::filesystem::path& path);

/// Entries that are kept where the least attended windows are evicted and each window's record says what the next one
/// sees; none elsewhere.
std::optional<std::size_t> entries_seen(const MemoryFileHeader& header);

/// The bytes of a file without documents. The header has been checked.
std::vector<std::byte> empty_file(const MemoryFileHeader& header, std::uint32_t version = kVersion);

struct ParsedHeader {
  MemoryFileHeader header;
  std::uint32_t version;
  std::uint64_t commits_offset;
  std::uint64_t digest;  // of a file without records
};
/// Verifies the start of a file, up to the commit slots. Throws InputError as MemoryFile::open does.
ParsedHeader parse_header(std::span<const std::byte> file, const std::filesystem::path& path);

/// Throws the InputError of a file whose bytes are not what a memlane wrote.
[[noreturn]] void damaged(const std::filesystem::path& path, const std::string& reason);
/// Throws the InputError of a file that ends too soon.
[[noreturn]] void truncated(const std::filesystem::path& path, std::uint64_t bytes, std::uint64_t expected);

}  // namespace memlane::format
