// --beyond evict-oldest and evict-least-attended.

#include <csignal>

#include "tests/apps/memory_budget_fixture.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;

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

/// Eviction of the windows that later ones attend to least.
class LeastAttended : public Eviction {
 protected:
  void begin(const std::string& memory, const Words& more = {}) { begin_evicting(memory, 3, "least attended", more); }

  /// The first windows of a document and nothing else, as if ingest had been killed after them.
  void cut_to(const std::string& memory, const MemoryFile& whole, std::size_t windows) {
    std::filesystem::remove(path(memory));
    MemoryFileWriter writer = MemoryFileWriter::create(path(memory), whole.header());
    const StoredDocument& stored = whole.documents()[0];
    writer.begin_document(stored.info);
    std::vector<Segment> parts;
    std::vector<std::int32_t> ids;
    for (const StoredWindow& part : stored.windows) {
      parts.emplace_back(whole.header().shape, part.count, part.entries);
      ids.insert(ids.end(), part.ids.begin(), part.ids.end());
      if (part.seen.empty()) continue;
      if (windows-- == 0) return;
      writer.append_window(0, ids, parts, part.seen);
      parts.clear();
      ids.clear();
    }
  }
};

TEST_F(LeastAttended, LeavesEachWindowWhatTheFileSaysThatItSees) {
  const std::string document = write("a.txt", story(1000, 1));
  begin("m");
  begin_evicting("oldest", 3);
  const nlohmann::json report = json_of(words("m", {"--json", document}));
  EXPECT_EQ(report.at("kept_entries"), 3 * kWindow);
  ASSERT_EQ(run(words("oldest", {document})).exit_code, 0);
  const MemoryFile file = MemoryFile::open(path("m"));
  const std::vector<StoredWindow>& windows = file.documents()[0].windows;
  ASSERT_GT(windows.size(), 6U);
  CpuExec exec(2);
  const Model model = load_model(exec, model_);
  const MemorySettings settings = resolve_memory_settings(model.config, {});
  std::vector<std::size_t> seen;
  bool not_the_oldest = false;
  for (std::size_t window = 0; window < windows.size(); ++window) {
    EXPECT_TRUE(holds_entries_of(file, exec, model, settings, window, seen)) << window;
    seen.clear();
    for (const SeenWindow& each : windows[window].seen) seen.push_back(each.index);
    EXPECT_EQ(seen.back(), window);
    EXPECT_EQ(seen.size(), std::min<std::size_t>(window + 1, 3));
    not_the_oldest = not_the_oldest || seen.back() - seen.front() >= 3;
  }
  EXPECT_TRUE(not_the_oldest) << "else this shows nothing";
  EXPECT_EQ(json_of(question("m", {})).at("memory_entries"), file.documents()[0].entries());
}

TEST_F(LeastAttended, IsTheSameFileWithAnyNumberOfThreadsAndAfterAnyWindow) {
  const std::string document = write("a.txt", story(1000, 1));
  for (const Words& more : {Words{}, Words{"--memory-window", "100"}, Words{"--index", "exact", "--top-k", "8"}}) {
    std::filesystem::remove(path("whole"));
    begin("whole", more);
    ASSERT_EQ(run(words("whole", more + Words{document})).exit_code, 0);
    const MemoryFile whole = MemoryFile::open(path("whole"));
    std::filesystem::remove(path("threads"));
    begin("threads", more);
    Words alone = words("threads", more + Words{document});
    *std::find(alone.begin(), alone.end(), "2") = "1";  // threads
    ASSERT_EQ(run(alone).exit_code, 0);
    EXPECT_EQ(digest_of(path("threads")), whole.commit().digest);
    for (const std::size_t windows : {0, 1, 4, 6}) {
      cut_to("m", whole, windows);
      const Outcome outcome = run(words("m", {document}));
      EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
      EXPECT_EQ(digest_of(path("m")), whole.commit().digest)
          << windows << " windows " << ::testing::PrintToString(more);
    }
  }
}

TEST_F(LeastAttended, IsTheSameFileWhenKilled) {
  const std::string document = write("a.txt", story(3000, 1));
  begin("whole");
  begin("m");
  ASSERT_EQ(run(words("whole", {document})).exit_code, 0);
  for (std::size_t windows = 2; windows < 20; windows += 5) {
    Program program(Invocation{.arguments = words("m", {document})});
    wait_until([&] {
      const auto state = program.ended() ? std::nullopt : state_of(path("m"));
      return program.ended() || (state && !state->documents.empty() && state->documents[0].windows.size() > windows);
    });
    program.send(SIGKILL);
    program.finish();
  }
  EXPECT_EQ(run(words("m", {document})).exit_code, 0);
  EXPECT_EQ(digest_of(path("m")), digest_of(path("whole")));
}

TEST_F(LeastAttended, IsKeptToTheBudget) {
  if (kSanitized) GTEST_SKIP() << "sanitizers hold memory of their own";
  const std::string document = write("a.txt", story(4000, 1));
  const std::uint64_t most = room_for(8, document);
  const nlohmann::json report = json_of(words("m", budget(most, "evict-least-attended") + Words{"--json", document}));
  EXPECT_EQ(report.at("beyond"), "evict-least-attended");
  EXPECT_EQ(report.at("kept_entries").get<std::size_t>() % kWindow, 0U);
  EXPECT_NEAR(report.at("kept_entries").get<double>() / kWindow, 8, 3);
  EXPECT_LE(report.at("peak_memory_bytes"), most);
  EXPECT_EQ(MemoryFile::open(path("m")).header().settings.at("evict"),
            fmt::format("least attended, {} entries", report.at("kept_entries").get<std::size_t>()));
}

TEST_F(LeastAttended, IsKeptToItsOwnFiles) {
  const std::string document = write("a.txt", story(300, 1)), other = write("b.txt", story(300, 2));
  ASSERT_EQ(run(words("m", budget(4096 * kMiB, "evict-least-attended") + Words{document})).exit_code, 0);
  EXPECT_THAT(MemoryFile::open(path("m")).header().settings.at("evict"), ::testing::StartsWith("least attended, "));
  for (const char* beyond : {"refuse", "spill"}) {
    expect_refused(words("m", budget(4096 * kMiB, beyond) + Words{other}),
                   {path("m"), "with --beyond evict-least-attended", beyond});
  }
  expect_refused(words("m", budget(4096 * kMiB, "evict-oldest") + Words{other}),
                 {path("m"), "with --beyond evict-least-attended", "found --beyond evict-oldest"});
  ASSERT_EQ(run(words("m", budget(4096 * kMiB, "evict-least-attended") + Words{other})).exit_code, 0);
  begin_evicting("oldest", 3);
  expect_refused(words("oldest", budget(4096 * kMiB, "evict-least-attended") + Words{other}),
                 {path("oldest"), "with --beyond evict-oldest", "found --beyond evict-least-attended"});
  expect_refused({"memory", "merge", path("all"), path("m"), path("oldest")}, {"evict"});
  ASSERT_EQ(run(words("everything", {document})).exit_code, 0);
  expect_refused(words("everything", budget(4096 * kMiB, "evict-least-attended") + Words{other}),
                 {path("everything"), "without --beyond evict-least-attended"});
  expect_refused({"memory", "merge", path("all"), path("m"), path("everything")}, {"evict"});
  for (const char* index : {"ivf", "int8", "Flat"}) {
    expect_refused(words("new", budget(4096 * kMiB, "evict-least-attended") + Words{"--index", index, document}),
                   {"--beyond evict-least-attended", "--index dense or exact", index});
  }
}

TEST_F(LeastAttended, NeedsALayerThatAttendsWhileDocumentsAreRead) {
  const std::string document = write("a.txt", story(300, 1));
  expect_refused(words("m", budget(4096 * kMiB, "evict-least-attended") + Words{"--mem-layers", "1", document}),
                 {"--beyond evict-least-attended", "found 1", "--mem-layers", "--beyond evict-oldest"});
}

TEST_F(LeastAttended, IsCarriedByMergingAndCompacting) {
  const std::string a = write("a.txt", story(800, 1)), b = write("b.txt", story(800, 2));
  begin("a");
  begin("b");
  begin("both");
  ASSERT_EQ(run(words("a", {a})).exit_code, 0);
  ASSERT_EQ(run(words("b", {b})).exit_code, 0);
  ASSERT_EQ(run(words("both", {a, b})).exit_code, 0);
  ASSERT_EQ(run({"memory", "merge", path("merged"), path("a"), path("b")}).exit_code, 0);
  EXPECT_EQ(digest_of(path("merged")), digest_of(path("both")));
  ASSERT_EQ(run({"memory", "drop", path("merged"), "a.txt"}).exit_code, 0);
  ASSERT_EQ(run({"memory", "compact", path("merged")}).exit_code, 0);
  EXPECT_EQ(digest_of(path("merged")), digest_of(path("b")));
}

TEST_F(LeastAttended, IsTheSameFileWhenCompactedHalfway) {
  const std::string document = write("a.txt", story(1000, 1));
  begin("whole");
  ASSERT_EQ(run(words("whole", {document})).exit_code, 0);
  cut_to("m", MemoryFile::open(path("whole")), 5);
  {
    MemoryFileWriter writer = MemoryFileWriter::append_to(path("m"));
    writer.drop_documents(std::vector<std::uint32_t>{writer.begin_document({0, "draft", "ab", 3, 3})});
  }
  ASSERT_EQ(run({"memory", "compact", path("m")}).exit_code, 0);
  ASSERT_EQ(run(words("m", {document})).exit_code, 0);
  EXPECT_EQ(digest_of(path("m")), digest_of(path("whole")));
}

TEST_F(Eviction, IsShown) {
  for (const std::string which : {"oldest", "least attended"}) {
    begin_evicting(which, 3, which);
    const std::string text = which + ", 768 entries";
    EXPECT_EQ(json_of({"info", path(which), "--json"}).at("evict"), text);
    EXPECT_EQ(json_of({"memory", "list", path(which), "--json"}).at("evict"), text);
    EXPECT_THAT(run({"info", path(which)}).out, HasSubstr("evict: " + text + "\n"));
    EXPECT_THAT(run({"memory", "list", path(which)}).out, HasSubstr("evict: " + text + "\n"));
  }
  EXPECT_EQ(json_of({"info", path("plain"), "--json"}).at("evict"), "none");
  EXPECT_EQ(json_of({"memory", "list", path("plain"), "--json"}).at("evict"), "none");
  EXPECT_THAT(run({"info", path("plain")}).out, HasSubstr("evict: none\n"));
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
                           "oldest, 256 entries ", "newest, 256 entries", "least attended, 0 entries",
                           "least attended, 100 entries", "oldest, 99999999999999999999 entries"}) {
    header.settings["evict"] = text;
    std::filesystem::remove(path("m"));
    MemoryFileWriter::create(path("m"), header);
    expect_refused(words("m", {document}), {path("m"), "\"evict\" in its header"});
  }
}

}  // namespace
}  // namespace memlane
