#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "memory/eviction.h"
#include "memory/memory.h"
#include "memory/memory_file.h"
#include "runtime/memory_need.h"
#include "runtime/resident_limit.h"

namespace memlane {

/// What happens where a run needs more memory than its budget.
enum class Beyond {
  refuse,               ///< nothing is done
  spill,                ///< entries are used where they lie in the memory file, as many at a time as there is room for
  evict_oldest,         ///< a document's memory keeps only its newest windows while it is read
  evict_least_attended  ///< those that later windows attend to most
};

std::string name_of(Beyond beyond);
/// What a way to go beyond a budget evicts; none if nothing.
std::optional<EvictionPolicy::Rule> evicted_by(Beyond beyond);
Beyond beyond_of(EvictionPolicy::Rule rule);
/// What a memory file says of eviction, for people: "oldest, 8192 entries", or "none".
std::string eviction_setting(const MemoryFileHeader& header);

/// The options --max-memory-bytes and --beyond.
struct MemoryBudget {
  std::optional<std::uint64_t> most;  ///< bytes that this process may have resident
  std::optional<Beyond> beyond;

  /// evicts: whether eviction can be chosen.
  void add_to(CLI::App& app, bool evicts);
  /// Throws InputError if there is something to do beyond no budget.
  void check() const;

  Beyond choice() const { return beyond.value_or(Beyond::refuse); }
  /// Bytes that are left for entries; the budget must cover what is fixed.
  std::uint64_t room(const MemoryNeed& need) const;
  /// Throws InputError if the budget does not allow what is needed: all of it, or to spill what is fixed.
  /// what: "reading these documents".
  void require(const MemoryNeed& need, std::string_view what) const;
  /// What will be resident: where entries are spilled, less than the budget by what it is kept ahead of the limit.
  std::uint64_t planned(const MemoryNeed& need) const;

  /// How entries are to be looked at; valid while this lives.
  Memory::Pieces pieces() const;
  /// Keeps the budget from here on, as far as pages of files are concerned; nothing without a budget. need: as far as
  /// it is known.
  void keep(const MemoryNeed& need);

 private:
  std::uint64_t ahead(const MemoryNeed& need) const;

  std::optional<ResidentLimit> limit_;
};

/// A number of bytes, with K, M or G behind it as powers of 1024. Throws InputError, naming the option, if it is none
/// or 0.
std::uint64_t parse_bytes(const std::string& option, std::string_view text);

}  // namespace memlane
