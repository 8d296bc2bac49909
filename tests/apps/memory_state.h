#pragma once

#include <fmt/format.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/apps/command_test.h"

namespace memlane {

/// What a memory file holds, to be compared: bytes by their checksums, which opening has verified.
struct MemoryState {
  struct Document {
    std::string name;
    std::uint64_t tokens = 0;
    bool complete = false;
    bool dropped = false;
    std::vector<std::uint64_t> windows;  ///< checksums of entries
    std::vector<std::uint64_t> indexes;  ///< of key indexes
    bool operator==(const Document&) const = default;
  };
  std::vector<Document> documents;
  std::vector<std::uint64_t> joint_index;  ///< checksums
  bool operator==(const MemoryState&) const = default;

  /// Whether work on this state leads to `later`: everything is there, or there as far as it was done.
  bool leads_to(const MemoryState& later) const {
    if (documents.size() > later.documents.size()) return false;
    for (std::size_t d = 0; d < documents.size(); ++d) {
      const Document& a = documents[d];
      const Document& b = later.documents[d];
      if (a.name != b.name || a.tokens != b.tokens || a.dropped != b.dropped || a.complete > b.complete) return false;
      if (a.windows.size() > b.windows.size() || !std::equal(a.windows.begin(), a.windows.end(), b.windows.begin()))
        return false;
      if (!a.indexes.empty() && a.indexes != b.indexes) return false;
    }
    return true;
  }
};

/// Nothing if there is no such file. Throws InputError if it is damaged.
inline std::optional<MemoryState> state_of(const std::string& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  MemoryState state;
  const MemoryFile file = MemoryFile::open(path);
  for (const StoredDocument& stored : file.documents()) {
    auto& document = state.documents.emplace_back();
    document.name = stored.info.name;
    document.tokens = stored.info.tokens;
    document.complete = stored.complete;
    document.dropped = stored.dropped;
    for (const StoredWindow& window : stored.windows) document.windows.push_back(window.checksum);
    document.indexes = stored.indexes.checksums;
  }
  state.joint_index = file.joint_index().checksums;
  return state;
}

/// What tests/apps/faulty_files does to a program's calls on the files of a folder.
struct Strike {
  std::string how = "count";  ///< fail, half, kill-before, kill-half, kill-after
  long first = -1;            ///< the first call that is struck: 0, 1, ...
  long last = -1;             ///< the last one
  int error = EIO;
};

inline constexpr long kForEver = 1L << 40;

inline Invocation struck(const Words& words, const std::filesystem::path& folder, const Strike& strike,
                         const std::string& count_to = {}) {
  Invocation invocation{.arguments = words};
  invocation.environment = {{"LD_PRELOAD", MEMLANE_FAULTY_FILES},
                            {"FAULTY_FOLDER", folder.string() + "/"},
                            {"FAULTY_HOW", strike.how},
                            {"FAULTY_FIRST", std::to_string(strike.first)},
                            {"FAULTY_LAST", std::to_string(strike.last)},
                            {"FAULTY_ERRNO", std::to_string(strike.error)}};
  if (!count_to.empty()) invocation.environment["FAULTY_COUNT_TO"] = count_to;
  // AddressSanitizer wants to be the first library; what comes before it here calls the system alone.
  if (kSanitized) invocation.environment["ASAN_OPTIONS"] = "verify_asan_link_order=0";
  return invocation;
}

/// Runs a command that succeeds, and returns how many calls it made on the folder's files.
inline long calls_of(const Words& words, const std::filesystem::path& folder) {
  const TemporaryFolder elsewhere;
  const std::string count = (elsewhere.path() / "count").string();
  const Outcome outcome = run(struck(words, folder, {}, count));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  const long calls = std::stol(read_text(count));
  EXPECT_GT(calls, 0);
  return calls;
}

}  // namespace memlane
