#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "memory/memory_file.h"
#include "memory/memory_file_format.h"

namespace memlane::format {

/// A record in the mapped file.
struct RecordView {
  RecordHeader header;
  std::uint64_t offset;  // in the file
  std::span<const std::byte> head;
  std::span<const std::byte> body;
};

/// Splits the committed bytes into records. Throws InputError if their headers do not lead from the first to the end of
/// the last, or do not add up to the commit's digest. file: at least commit.length bytes. digest: that of a file
/// without records.
std::vector<RecordView> split_records(std::span<const std::byte> file, std::uint64_t begin, const Commit& commit,
                                      std::uint64_t digest, const std::filesystem::path& path);

enum class Parts { heads, heads_and_bodies };

/// Verifies parts of all records, with several threads if there is much of them. Throws InputError naming the first
/// record that is damaged.
void verify_checksums(std::span<const RecordView> records, Parts parts, const std::filesystem::path& path);

/// The body of a record, and what it is.
struct NamedBody {
  std::string of;  // "window 3 of document 0"
  std::span<const std::byte> bytes;
  std::uint64_t checksum;
};

/// Verifies bodies and the zeros after them as verify_checksums() does. file: the bytes that they lie in.
void verify_bodies(std::span<const NamedBody> bodies, std::span<const std::byte> file,
                   const std::filesystem::path& path);

struct Contents {
  std::vector<StoredDocument> documents;
  StoredJointIndex joint_index;
};
/// What the records say, once their checksums are right; spans point into them. Throws InputError if they contradict
/// the header or one another: a checksum finds damage, not a faulty or hostile writer.
Contents interpret(std::span<const RecordView> records, const MemoryFileHeader& header, std::uint32_t version,
                   const std::filesystem::path& path);

}  // namespace memlane::format
