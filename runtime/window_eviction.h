#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "memory/eviction.h"
#include "memory/memory_file.h"
#include "runtime/memory_weights.h"
#include "runtime/session.h"

namespace memlane {

/// Reads the windows of a document into the memory of a session and keeps there what a policy says that the next one
/// sees. For lookups without indexes and models on the CPU.
class EvictingReader {
 public:
  /// policy: none to keep everything. session: has read nothing yet; outlives this. Throws InputError where the least
  /// attended are to be evicted and no memory layer attends.
  EvictingReader(Session& session, const MemorySettings& settings, const std::optional<EvictionPolicy>& policy);

  EvictingReader(const EvictingReader&) = delete;
  EvictingReader& operator=(const EvictingReader&) = delete;

  /// Bytes that weighing windows takes while one is read, with so many entries in memory, its own included.
  static std::size_t weighing_bytes(const ModelConfig& config, const MemorySettings& settings, std::size_t entries);

  /// Goes on with a stored document, some of which has been read by the same policy. The file outlives this.
  void resume(CpuExec& exec, const MemoryFile& file, const StoredDocument& document, const Lookup& lookup);

  /// Session::read_window. What it returns is valid until evict().
  std::span<const Segment> read_window(std::span<const std::int32_t> ids);
  /// What has to be stored with the window read last: what the next one will see, where the least attended are evicted;
  /// else empty.
  std::span<const SeenWindow> seen() const;
  /// Evicts, once the window has been stored.
  void evict();

 private:
  bool by_attention() const { return policy_ && policy_->rule == EvictionPolicy::Rule::least_attended; }

  Session& session_;
  std::optional<EvictionPolicy> policy_;
  AttendedWindows attended_;
  MemoryWeights weights_;
  std::uint32_t windows_ = 0;  // of the document
};

/// Throws InputError if the least attended windows cannot be told with these memory layers: while documents are read
/// the last one does not attend.
void require_attention(const MemorySettings& settings);

}  // namespace memlane
