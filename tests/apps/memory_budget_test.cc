// --max-memory-bytes, and what happens beyond it but eviction.

#include <csignal>

#include "tests/apps/memory_budget_fixture.h"

namespace memlane {
namespace {

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

TEST_F(Budget, IsPlannedForListsThatAreMadeForAQuestion) {
  if (kSanitized) GTEST_SKIP() << "sanitizers hold memory of their own";
  ASSERT_EQ(run(words("m", {write("a.txt", story(6000, 1))})).exit_code, 0);
  Words asked = question("m", {"--index", "ivf"});
  *std::next(std::find(asked.begin(), asked.end(), "--threads")) = "8";  // each of which makes lists
  const nlohmann::json report = json_of(asked);
  const double planned = report.at("planned_memory_bytes"), taken = report.at("peak_memory_bytes");
  EXPECT_LE(taken, planned * 1.02);
  EXPECT_GT(taken, planned * 0.6) << "threads need not all make lists at the same moment";
  const std::uint64_t too_few = report.at("planned_memory_bytes").get<std::uint64_t>() / 2;
  expect_refused(asked + Words{"--max-memory-bytes", std::to_string(too_few)},
                 {"--max-memory-bytes: this question needs", "are allowed"});
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
  for (const char* beyond : {"refuse", "spill", "evict-oldest", "evict-least-attended"}) {
    expect_refused(words("m", budget(kMiB, beyond) + Words{document}),
                   {"--max-memory-bytes: reading these documents needs", "1.0 MiB are allowed"});
  }
  expect_refused(Invocation{.arguments = words("m", {"--max-memory-bytes", "1M", "-"}), .input = story(100, 1)},
                 {"--max-memory-bytes"});
  ASSERT_EQ(run(words("m", {"--max-memory-bytes", "8G", document})).exit_code, 0);
  for (const char* beyond : {"refuse", "spill"}) {
    expect_refused(question("m", budget(kMiB, beyond)), {"--max-memory-bytes: this question needs", "1.0 MiB"});
  }
  for (const char* beyond : {"evict-oldest", "evict-least-attended"}) {
    expect_refused(question("m", {"--max-memory-bytes", "8G", "--beyond", beyond}),
                   {"--beyond", "refuse", "spill", beyond});
  }
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

}  // namespace
}  // namespace memlane
