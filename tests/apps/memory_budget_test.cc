// --max-memory-bytes and what happens beyond it.

#include <csignal>

#include "memory/memory_file_writer.h"
#include "runtime/session.h"
#include "tests/apps/memory_state.h"
#include "tests/reference/random_checkpoint.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kMargin = 16 * kMiB;  // that small budgets are ahead of what is kept
constexpr std::size_t kWindow = 256;
constexpr std::uint64_t kWindowBytes = kWindow * 8192;  // 2 layers, 8 heads of 64, keys and values, float32

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

std::uint64_t digest_of(const std::string& path) {
  return MemoryFile::open(path).commit().digest;
}

TEST_F(Budget, IsKeptBySpillingWithTheSameResults) {
  if (kSanitized) GTEST_SKIP() << "sanitizers hold memory of their own";
  const std::string document = write("a.txt", story(6000, 1));
  const nlohmann::json ample = json_of(words("ample", {"--json", document}));
  const std::uint64_t entries = ample.at("planned_entry_bytes");
  const std::uint64_t most = room_for(0, document);
  ASSERT_GT(entries, 4 * (most - ample.at("planned_fixed_bytes").get<std::uint64_t>()));
  ASSERT_GT(ample.at("peak_memory_bytes"), most) << "else nothing needs to be spilled";

  const nlohmann::json spilled = json_of(words("spilled", budget(most, "spill") + Words{"--json", document}));
  EXPECT_LE(spilled.at("peak_memory_bytes"), most);
  EXPECT_LE(spilled.at("planned_memory_bytes"), most);
  EXPECT_EQ(spilled.at("max_memory_bytes"), most);
  EXPECT_EQ(spilled.at("beyond"), "spill");
  EXPECT_EQ(digest_of(path("spilled")), digest_of(path("ample")));

  const nlohmann::json asked = json_of(question("ample", {}));
  EXPECT_GT(asked.at("peak_memory_bytes"), most);
  const nlohmann::json asked_within = json_of(question("ample", budget(most, "spill")));
  EXPECT_LE(asked_within.at("peak_memory_bytes"), most);
  EXPECT_EQ(asked_within.at("ids"), asked.at("ids"));
}

TEST_F(Budget, IsPlannedWithinATenthOfWhatIsTaken) {
  if (kSanitized) GTEST_SKIP() << "sanitizers hold memory of their own";
  for (const std::size_t words_of : {500, 4000}) {
    const std::string document = write("a.txt", story(words_of, 1));
    const nlohmann::json report = json_of(words(std::to_string(words_of), {"--json", document}));
    const double planned = report.at("planned_memory_bytes"), taken = report.at("peak_memory_bytes");
    EXPECT_NEAR(planned / taken, 1, 0.1) << words_of << " words: planned " << planned << ", taken " << taken;
  }
}

TEST_F(Budget, SpilledWorkIsContinuedToTheSameFile) {
  const std::string document = write("a.txt", story(1500, 1));
  ASSERT_EQ(run(words("whole", {document})).exit_code, 0);
  const Words command = words("m", budget(2048 * kMiB, "spill") + Words{document});
  {
    Program program(Invocation{.arguments = command});
    EXPECT_TRUE(wait_until([&] {
      const auto state = program.ended() ? std::nullopt : state_of(path("m"));
      return program.ended() || (state && !state->documents.empty() && state->documents[0].windows.size() > 1);
    }));
    program.send(SIGINT);
    program.finish();
  }
  const Outcome continued = run(command);
  EXPECT_EQ(continued.exit_code, 0) << continued.err;
  EXPECT_EQ(digest_of(path("m")), digest_of(path("whole")));
  // With indexes, whose lists are made of keys that lie in the file.
  const Words lists = {"--index", "ivf", "--index-parameters", "chunk=512,lists=8", "--top-k", "16", document};
  ASSERT_EQ(run(words("lists", lists)).exit_code, 0);
  ASSERT_EQ(run(words("spilled-lists", budget(2048 * kMiB, "spill") + lists)).exit_code, 0);
  EXPECT_EQ(digest_of(path("spilled-lists")), digest_of(path("lists")));
}

TEST_F(Budget, RefusesWhatItDoesNotAllow) {
  const std::string document = write("a.txt", story(1500, 1));
  const std::uint64_t fixed = fixed_bytes(document);
  expect_refused(words("m", {"--max-memory-bytes", std::to_string(fixed + 2 * kWindowBytes), document}),
                 {"--max-memory-bytes: reading these documents needs", "--beyond"});
  for (const char* beyond : {"refuse", "spill", "evict-oldest"}) {
    expect_refused(words("m", budget(kMiB, beyond) + Words{document}),
                   {"--max-memory-bytes: reading these documents needs", "1.0 MiB are allowed"});
  }
  expect_refused(Invocation{.arguments = words("m", {"--max-memory-bytes", "1M", "-"}), .input = story(100, 1)},
                 {"--max-memory-bytes"});
  ASSERT_EQ(run(words("m", {"--max-memory-bytes", "8G", document})).exit_code, 0);
  for (const char* beyond : {"refuse", "spill"}) {
    expect_refused(question("m", budget(kMiB, beyond)), {"--max-memory-bytes: this question needs", "1.0 MiB"});
  }
  expect_refused(question("m", {"--max-memory-bytes", "8G", "--beyond", "evict-oldest"}),
                 {"--beyond", "refuse", "spill", "evict-oldest"});
}

TEST_F(Budget, IsASize) {
  const std::string document = write("a.txt", story(20, 1));
  for (const char* size : {"0", "-1", "", "K", "0M", "1.5G", "1e9", "12X", "1KB", "1 G", "lots", "18446744073709551616",
                           "17179869184G", "99999999999999999999M"}) {
    expect_refused(words("m", {"--max-memory-bytes", size, document}),
                   {"--max-memory-bytes: expected a number of bytes", fmt::format("'{}'", size)});
  }
  for (const char* size : {"4294967296", "4194304K", "4096M", "4G"}) {
    const nlohmann::json plan = json_of(words("m", {"--plan", "--json", "--max-memory-bytes", size, document}));
    EXPECT_EQ(plan.at("max_memory_bytes"), 4096 * kMiB) << size;
  }
  expect_refused(words("m", {"--beyond", "spill", document}), {"--beyond spill", "--max-memory-bytes"});
  expect_refused(words("m", {"--max-memory-bytes", "1G", "--beyond", "swap", document}), {"--beyond", "'swap'"});
}

class Eviction : public Budget {
 protected:
  /// An empty memory file whose documents are read with so many windows kept: what a budget has room for differs from
  /// run to run.
  void begin_evicting(const std::string& memory, std::size_t windows) {
    ASSERT_EQ(run(words("plain", {write("plain.txt", story(20, 1))})).exit_code, 0);
    MemoryFileHeader header = MemoryFile::open(path("plain")).header();
    header.settings["evict"] = fmt::format("oldest, {} entries", windows * kWindow);
    MemoryFileWriter::create(path(memory), header);
  }

  /// The entries of a window, read by a session whose memory holds nothing but the `kept` windows before it.
  static bool holds_entries_of(const MemoryFile& file, CpuExec& exec, const Model& model,
                               const MemorySettings& settings, std::size_t window, std::size_t kept) {
    const std::vector<StoredWindow>& windows = file.documents()[0].windows;
    const EntryShape& shape = file.header().shape;
    Session session(exec, model, settings, Lookup{});
    for (std::size_t i = window > kept ? window - kept : 0; i < window; ++i) {
      session.own_memory().append(Segment(shape, windows[i].count, windows[i].entries));
    }
    const std::span<const std::byte> made = session.read_window(windows[window].ids).front().bytes();
    return std::equal(made.begin(), made.end(), windows[window].entries);
  }
};

TEST_F(Eviction, KeepsAsManyWindowsAsTheBudgetHasRoomFor) {
  if (kSanitized) GTEST_SKIP() << "sanitizers hold memory of their own";
  const std::string document = write("a.txt", story(4000, 1));
  const nlohmann::json report =
      json_of(words("m", budget(room_for(8, document), "evict-oldest") + Words{"--json", document}));
  const std::size_t kept = report.at("kept_entries").get<std::size_t>();
  EXPECT_EQ(kept % kWindow, 0U);
  EXPECT_NEAR(static_cast<double>(kept) / kWindow, 8, 3);
  EXPECT_EQ(MemoryFile::open(path("m")).header().settings.at("evict"), fmt::format("oldest, {} entries", kept));
}

TEST_F(Eviction, LeavesEachWindowTheNewestOfThoseBeforeIt) {
  constexpr std::size_t kKept = 3;
  const std::string document = write("a.txt", story(1000, 1));
  begin_evicting("m", kKept);
  const nlohmann::json report = json_of(words("m", {"--json", document}));
  EXPECT_EQ(report.at("kept_entries"), kKept * kWindow);
  const MemoryFile file = MemoryFile::open(path("m"));
  const std::size_t windows = file.documents()[0].windows.size();
  ASSERT_GT(windows, kKept + 2);
  EXPECT_TRUE(file.documents()[0].complete) << "all of it is in the file";
  CpuExec exec(2);
  const Model model = load_model(exec, model_);
  const MemorySettings settings = resolve_memory_settings(model.config, {});
  for (std::size_t window = 0; window < windows; ++window) {
    EXPECT_TRUE(holds_entries_of(file, exec, model, settings, window, kKept)) << window;
  }
  EXPECT_FALSE(holds_entries_of(file, exec, model, settings, windows - 1, windows)) << "it saw less than all";
  EXPECT_FALSE(json_of(question("m", {})).at("text").empty());
  EXPECT_EQ(json_of(question("m", {})).at("memory_entries"), file.documents()[0].entries());
}

TEST_F(Eviction, IsTheSameWhenInterruptedAndGoesOnWithoutBeingTold) {
  const std::string document = write("a.txt", story(1500, 1));
  begin_evicting("whole", 3);
  ASSERT_EQ(run(words("whole", {document})).exit_code, 0);
  {
    // The same header, and the first windows.
    const MemoryFile whole = MemoryFile::open(path("whole"));
    MemoryFileWriter writer = MemoryFileWriter::create(path("m"), whole.header());
    const StoredDocument& stored = whole.documents()[0];
    writer.begin_document(stored.info);
    for (std::size_t i = 0; i < 6; ++i) {
      const StoredWindow& window = stored.windows[i];
      writer.append_window(0, window.ids, Segment(whole.header().shape, window.count, window.entries));
    }
  }
  const std::string first = read_text(path("m"));
  for (const Words& again : {Words{}, Words{"--max-memory-bytes", "4G"}, budget(4096 * kMiB, "evict-oldest")}) {
    write("m", first);
    const Outcome outcome = run(words("m", again + Words{document}));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(digest_of(path("m")), digest_of(path("whole")));
  }
  write("m", first);
  expect_refused(words("m", budget(kMiB, "evict-oldest") + Words{document}), {"--max-memory-bytes", "1.0 MiB"});
  for (const char* beyond : {"refuse", "spill"}) {
    expect_refused(words("m", budget(4096 * kMiB, beyond) + Words{document}),
                   {path("m"), "with --beyond evict-oldest", beyond});
  }
}

TEST_F(Eviction, IsNotMixedWithOtherWaysOfReading) {
  const std::string a = write("a.txt", story(300, 1)), b = write("b.txt", story(300, 2));
  const Words evicting = budget(4096 * kMiB, "evict-oldest");
  ASSERT_EQ(run(words("plain", {a})).exit_code, 0);
  ASSERT_EQ(run(words("evicted", evicting + Words{a})).exit_code, 0);
  expect_refused(words("plain", evicting + Words{b}), {path("plain"), "without --beyond evict-oldest"});
  expect_refused({"memory", "merge", path("all"), path("plain"), path("evicted")}, {"evict"});
  ASSERT_EQ(run(words("evicted", {b})).exit_code, 0);
  EXPECT_EQ(json_of(question("evicted", {})).at("documents"), 2);
  for (const char* index : {"ivf", "int8", "Flat"}) {
    expect_refused(words("m", evicting + Words{"--index", index, a}),
                   {"--beyond evict-oldest", "--index dense or exact", index});
  }
  EXPECT_EQ(run(words("exact", evicting + Words{"--index", "exact", "--top-k", "8", a})).exit_code, 0);
}

TEST_F(Eviction, IsRefusedFromAFileThatSaysItOtherwise) {
  const std::string document = write("a.txt", story(300, 1));
  ASSERT_EQ(run(words("m", {document})).exit_code, 0);
  MemoryFileHeader header = MemoryFile::open(path("m")).header();
  for (const char* text : {"", "oldest", "oldest, 0 entries", "oldest, 100 entries", "oldest, -256 entries",
                           "oldest, 256 entries ", "newest, 256 entries", "oldest, 99999999999999999999 entries"}) {
    header.settings["evict"] = text;
    std::filesystem::remove(path("m"));
    MemoryFileWriter::create(path("m"), header);
    expect_refused(words("m", {document}), {path("m"), "\"evict\" in its header"});
  }
}

}  // namespace
}  // namespace memlane
