// Memory files that do not fit or cannot be read, full disks, small limits.

#include "tests/apps/command_test.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;

class BadMemory : public CommandTest {
 protected:
  /// By ask, by logits, and by ingest, which must not add to it.
  void expect_refused_everywhere(const std::string& memory, const Words& named) {
    const std::string document = path("next.txt");
    if (!std::filesystem::exists(document)) write("next.txt", story(20, 9));
    expect_refused(ask_words(memory, "Once"), named);
    expect_refused(
        Words{"logits", "--model", stories(), "--memory", path(memory), "--text", "a", "--output", path("out")}, named);
    expect_refused(ingest_words(memory, {"--mem-layers", "2,3", "--window", "64", document}), named);
  }
};

TEST_F(BadMemory, ThatIsMissingEmptyOrSomethingElseIsNamed) {
  expect_refused(ask_words("none", "Once"), {path("none"), "No such file"});
  write("empty", "");
  expect_refused_everywhere("empty", {path("empty")});
  write("text", story(100, 1));
  expect_refused_everywhere("text", {path("text"), "memory file"});
  std::filesystem::create_directory(path("folder"));
  expect_refused_everywhere("folder", {path("folder")});
  expect_refused(ingest_words("text/m", {"--mem-layers", "2", write("a.txt", story(20, 1))}), {path("text/m")});
  expect_refused(ingest_words("no/folder/m", {"--mem-layers", "2", path("a.txt")}),
                 {path("no/folder/m"), "create its folder"});
  expect_refused(ingest_words("a.txt", {"--mem-layers", "2", path("a.txt")}), {path("a.txt"), "memory file"});
}

TEST_F(BadMemory, ThatIsDamagedIsRefused) {
  ingest("m", {write("a.txt", story(100, 1))});
  const std::string bytes = read_text(path("m"));
  for (const std::size_t size : {bytes.size() - 1, bytes.size() / 2, std::size_t{5000}, std::size_t{10}}) {
    write("short", bytes.substr(0, size));
    expect_refused_everywhere("short", {path("short")});
  }
  for (const std::size_t at :
       {std::size_t{3}, std::size_t{8}, std::size_t{100}, std::size_t{4100}, bytes.size() / 2, bytes.size() - 70}) {
    std::string flipped = bytes;
    flipped[at] = static_cast<char>(flipped[at] ^ 4);
    write("flipped", flipped);
    expect_refused_everywhere("flipped", {path("flipped")});
  }
}

TEST_F(BadMemory, DamageInOtherDocumentsThanThoseAskedDoesNotMatter) {
  ingest("m", {write("a.txt", story(100, 1)), write("b.txt", story(100, 2)), write("c.txt", story(100, 3))});
  const Words about_a = {"--documents", "a.txt"}, about_b = {"--documents", "a.txt,b.txt"};
  const std::string answer = ask("m", "Once", about_a);
  std::string bytes = read_text(path("m"));
  std::size_t at = 0;
  {
    const MemoryFile file = MemoryFile::open(path("m"));
    const auto* entries = reinterpret_cast<const char*>(file.documents()[1].windows[1].entries);
    at = bytes.find(std::string_view(entries, 256));
  }
  ASSERT_NE(at, std::string::npos);
  bytes[at + 9] = static_cast<char>(bytes[at + 9] ^ 4);
  write("m", bytes);
  EXPECT_EQ(ask("m", "Once", about_a), answer);
  const Words logits = {"logits", "--model", stories(), "--memory", path("m"), "--text", "a", "--output", path("out")};
  EXPECT_EQ(run(logits + about_a).exit_code, 0);
  const Words damage = {path("m"), "damaged: window 1 of document 1 at byte"};
  expect_refused(ask_words("m", "Once", about_b), damage);
  expect_refused(logits + about_b, damage);
  const Words anywhere = {path("m"), "damaged: record "};
  expect_refused(ask_words("m", "Once"), anywhere);
  expect_refused(ingest_words("m", {write("d.txt", story(20, 4))}), anywhere);
  expect_refused({"memory", "list", path("m")}, anywhere);
  expect_refused({"memory", "drop", path("m"), "b.txt"}, anywhere);
  expect_refused({"memory", "compact", path("m")}, anywhere);
  expect_refused({"memory", "merge", path("n"), path("m")}, anywhere);
  expect_refused({"info", path("m")}, anywhere);
}

TEST_F(BadMemory, IsOpenedOnlyWhenAllElseThatIsReadIsGood) {
  ingest("m", {write("a.txt", story(100, 1))});
  std::string bytes = read_text(path("m"));
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  write("m", bytes);
  expect_refused({"ask", "--model", stories(), "--memory", path("m"), "--questions", path("none")}, {path("none")});
  expect_refused({"ask", "--model", stories(), "--memory", path("m"), " "}, {"question"});
  expect_refused({"logits", "--model", stories(), "--memory", path("m"), "--ids", path("no"), "--output", path("out")},
                 {path("no")});
  expect_refused(ingest_words("m", {path("a.txt"), path("no.txt")}), {path("no.txt")});
}

TEST_F(BadMemory, OfAnotherModelIsRefused) {
  ingest("m", {write("a.txt", story(100, 1))});
  const auto other = [&](const std::string& name, const Words& named) {
    const std::string model = path(name);
    expect_refused(Words{"ask", "--model", model, "--memory", path("m"), "Once"}, named);
    expect_refused(Words{"logits", "--model", model, "--memory", path("m"), "--text", "a", "--output", path("out")},
                   named);
    expect_refused(Words{"ingest", "--quiet", "--model", model, "--memory", path("m"), write("b.txt", story(20, 2))},
                   named);
  };
  const std::string model = copy_of_stories("weights");
  std::string weights = read_text(model + "/model.safetensors");
  weights[weights.size() - 2] = static_cast<char>(weights[weights.size() - 2] ^ 1);
  write("weights/model.safetensors", weights);
  other("weights", {path("m"), "another model", "model"});

  copy_of_stories("config");
  auto config = nlohmann::json::parse(read_text(path("config/config.json")));
  config["rope_theta"] = 20000.0;
  write("config/config.json", config.dump());
  other("config", {path("m"), "another model"});
  config["rope_theta"] = 10000.0;
  config["num_hidden_layers"] = 3;
  write("config/config.json", config.dump());
  other("config", {path("m"), "another model", "0 to 2"});
}

TEST_F(BadMemory, OfOtherSettingsIsRefused) {
  ingest("m", {write("a.txt", story(100, 1))});
  write("b.txt", story(20, 2));
  const auto refuse = [&](const Words& flags, const Words& named) {
    expect_refused(ask_words("m", "Once", flags), named);
    expect_refused(ingest_words("m", flags + Words{path("b.txt")}), named);
    expect_refused(ingest_words("m", flags + Words{path("a.txt")}), named);  // though it has been read
  };
  refuse({"--mem-layers", "1,3"}, {path("m"), "2,3", "1,3"});
  refuse({"--window", "32"}, {path("m"), "window", "64", "32"});
  refuse({"--mem-dtype", "float32"}, {path("m"), "bfloat16", "float32"});
  refuse({"--compute", "bf16"}, {path("m"), "float32", "bfloat16"});
  refuse({"--weights", "int8"}, {path("m"), "weights float32 in the file, int8 asked for"});
  expect_refused(ingest_words("m", {"--index", "exact", path("b.txt")}), {path("m"), "dense", "exact"});
  EXPECT_EQ(run(ask_words("m", "Once", {"--index", "exact"})).exit_code, 0)
      << "a question may look memory up otherwise";
}

class Limits : public CommandTest {};

TEST_F(Limits, AFullDiskKeepsWhatIsStored) {
  ingest("m", {write("a.txt", story(100, 1))});
  const std::string b = write("b.txt", story(600, 2));
  const std::string before = ask("m", "Once upon");
  const ::rlim_t limit = std::filesystem::file_size(path("m")) + 30000;
  const Outcome outcome = run(Invocation{.arguments = ingest_words("m", {b}), .limits = {{RLIMIT_FSIZE, limit}}});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr(path("m") + ": cannot write"));
  const MemoryFile file = MemoryFile::open(path("m"));
  EXPECT_FALSE(file.has_uncommitted_tail());
  EXPECT_TRUE(file.documents()[0].complete);
  ASSERT_EQ(file.documents().size(), 2U);
  EXPECT_GT(file.documents()[1].windows.size(), 0U) << "what could be stored is";
  EXPECT_EQ(run(ingest_words("m", {b})).exit_code, 0) << "and is continued when there is room";
  EXPECT_EQ(contents_of(folder()).size(), 3U);
}

TEST_F(Limits, NoRoomAtAllLeavesNothing) {
  if (kThreadSanitized)
    GTEST_SKIP() << "ThreadSanitizer's runtime writes a file before main, and the limit stops it there";
  const std::string document = write("a.txt", story(100, 1));
  for (const ::rlim_t limit : {::rlim_t{0}, ::rlim_t{100}, ::rlim_t{8192}, ::rlim_t{14000}}) {
    expect_refused(Invocation{.arguments = ingest_words("m", {"--mem-layers", "2", "--window", "512", document}),
                              .limits = {{RLIMIT_FSIZE, limit}}},
                   {path("m"), "cannot write"});
    expect_refused(Invocation{.arguments = ingest_words("m", {"--mem-layers", "2", "--window", "512", "-"}),
                              .input = story(9000, 1),
                              .limits = {{RLIMIT_FSIZE, limit}}},
                   {path("m.stdin"), "cannot write"});
    expect_refused(
        Invocation{.arguments = {"logits", "--model", stories(), "--text", story(100, 1), "--output", path("out")},
                   .limits = {{RLIMIT_FSIZE, limit}}},
        {path("out"), "cannot write"});
  }
}

TEST_F(Limits, WorkThatDoesNotFitInMemoryIsRefusedBeforehand) {
  if (kSanitized) GTEST_SKIP() << "sanitizers reserve more addresses than any limit on them allows";
  const std::string document = write("a.txt", story(200000, 1));
  constexpr ::rlim_t kLimit = ::rlim_t{400} << 20;
  // 4 layers of float32 entries: about 1 KiB and a half a token.
  const Words layers = {"--mem-layers", "0,1,2,3,4", "--mem-dtype", "float32"};
  expect_refused(Invocation{.arguments = ingest_words("m", layers + Words{document}), .limits = {{RLIMIT_AS, kLimit}}},
                 {"reading these documents", "of memory", "--mem-layers"});
  expect_refused(
      Invocation{.arguments = Words{"generate", "--model", stories(), "--threads", "2", "--file", document} + layers,
                 .limits = {{RLIMIT_AS, kLimit}}},
      {"a prompt of", "of memory"});
  expect_refused(
      Invocation{.arguments = {"logits", "--model", stories(), "--threads", "2", "--ids",
                               write_ids("ids", std::vector<std::int32_t>(400000, 5)), "--output", path("out")},
                 .limits = {{RLIMIT_AS, kLimit}}},
      {"the logits of", "of memory"});
}

TEST_F(Limits, ThreadsThatDoNotStartAreRefused) {
  if (kSanitized) GTEST_SKIP() << "sanitizers reserve more addresses than any limit on them allows";
  expect_refused(Invocation{.arguments = {"generate", "--model", stories(), "--threads", "1000"},
                            .limits = {{RLIMIT_AS, ::rlim_t{500} << 20}}},
                 {"--threads 1000", "use fewer"});
}

}  // namespace
}  // namespace memlane
