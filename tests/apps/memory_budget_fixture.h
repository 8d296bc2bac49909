#pragma once

#include "memory/memory_file_writer.h"
#include "runtime/session.h"
#include "tests/apps/memory_state.h"
#include "tests/reference/random_checkpoint.h"

namespace memlane {

inline constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
inline constexpr std::uint64_t kMargin = 16 * kMiB;  // that small budgets are ahead of what is kept
inline constexpr std::size_t kWindow = 256;
inline constexpr std::uint64_t kWindowBytes = kWindow * 8192;  // 2 layers, 8 heads of 64, keys and values, float32

/// A model of few weights and large entries: what is resident is what is remembered.
class Budget : public CommandTest {
 protected:
  Budget() {
    std::filesystem::create_directory(model_);
    const reference::RandomModel model = {.vocab = 512,
                                          .hidden = 32,
                                          .intermediate = 32,
                                          .layers = 3,
                                          .heads = 8,
                                          .kv_heads = 8,
                                          .head_dim = 64,
                                          .window = kWindow,
                                          .last_context = 64,
                                          .tied = true};
    reference::write_random_checkpoint(model_, model, 1);
    std::filesystem::copy(stories() + "/tokenizer.model", model_ + "/tokenizer.model");
  }

  Words words(const std::string& memory, const Words& rest) const {
    return Words{"ingest", "--model", model_, "--memory", path(memory), "--threads", "2", "--quiet"} + rest;
  }
  Words question(const std::string& memory, const Words& rest) const {
    return Words{"ask", "--model", model_, "--memory",     path(memory), "--threads",
                 "2",   "--json",  "Once", "--max-tokens", "4"} +
           rest;
  }
  static Words budget(std::uint64_t bytes, const std::string& beyond) {
    return {"--max-memory-bytes", std::to_string(bytes), "--beyond", beyond};
  }
  /// What is fixed in the plan for a document.
  std::uint64_t fixed_bytes(const std::string& document) const {
    return json_of(words("none", {"--plan", "--json", document})).at("planned_fixed_bytes").get<std::uint64_t>();
  }
  /// A budget with room for so many windows beside the one that is read.
  std::uint64_t room_for(std::size_t windows, const std::string& document) const {
    return fixed_bytes(document) + kMargin + windows * kWindowBytes + kWindowBytes / 2;
  }

  std::string model_ = path("model");
};

inline std::uint64_t digest_of(const std::string& path) {
  return MemoryFile::open(path).commit().digest;
}

class Eviction : public Budget {
 protected:
  /// An empty memory file whose documents are read with so many windows kept: what a budget has room for differs from
  /// run to run.
  void begin_evicting(const std::string& memory, std::size_t windows, const std::string& which = "oldest",
                      const Words& more = {}) {
    std::filesystem::remove(path("plain"));
    ASSERT_EQ(run(words("plain", more + Words{write("plain.txt", story(20, 1))})).exit_code, 0);
    MemoryFileHeader header = MemoryFile::open(path("plain")).header();
    header.settings["evict"] = fmt::format("{}, {} entries", which, windows * kWindow);
    MemoryFileWriter::create(path(memory), header);
  }

  /// The entries of a window, read by a session whose memory holds nothing but the `kept` windows before it.
  static bool holds_entries_of(const MemoryFile& file, CpuExec& exec, const Model& model,
                               const MemorySettings& settings, std::size_t window, std::size_t kept) {
    std::vector<std::size_t> seen;
    for (std::size_t i = window > kept ? window - kept : 0; i < window; ++i) seen.push_back(i);
    return holds_entries_of(file, exec, model, settings, window, seen);
  }
  /// The same with these windows.
  static bool holds_entries_of(const MemoryFile& file, CpuExec& exec, const Model& model,
                               const MemorySettings& settings, std::size_t window,
                               const std::vector<std::size_t>& seen) {
    const std::vector<StoredWindow>& windows = file.documents()[0].windows;
    const EntryShape& shape = file.header().shape;
    Session session(exec, model, settings, Lookup{});
    for (const std::size_t i : seen) {
      session.own_memory().append(Segment(shape, windows[i].count, windows[i].entries));
    }
    const std::span<const std::byte> made = session.read_window(windows[window].ids).front().bytes();
    return std::equal(made.begin(), made.end(), windows[window].entries);
  }
};

}  // namespace memlane
