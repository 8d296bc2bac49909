#include "tests/apps/command_test.h"

namespace memlane {
namespace {

TEST_F(CommandTest, InstalledRunsFromAnywhere) {
  const Outcome installed = run(
      Invocation{.arguments = {"--install", MEMLANE_BUILD_DIR, "--prefix", path("prefix")}, .program = MEMLANE_CMAKE});
  ASSERT_EQ(installed.exit_code, 0) << installed.err;
  std::filesystem::path program;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path("prefix"))) {
    if (entry.path().filename() == "memlane" && entry.is_regular_file()) program = entry.path();
  }
  ASSERT_FALSE(program.empty());
  std::filesystem::create_directory(path("elsewhere"));
  std::filesystem::copy(stories(), path("model"));
  const Outcome outcome =
      run(Invocation{.arguments = {"generate", "--model", "../model", "--prompt", "Once upon", "--max-tokens", "5"},
                     .program = program,
                     .folder = path("elsewhere")});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, " a time, there was\n");
}

}  // namespace
}  // namespace memlane
