// `memlane bench index` and `memlane memory index`.

#include <signal.h>

#include <chrono>
#include <thread>

#include "memory/joint_index.h"
#include "memory/memory_file_format.h"
#include "memory/memory_file_writer.h"
#include "runtime/stored_memory.h"
#include "tests/apps/memory_state.h"

namespace memlane {
namespace {

using ::testing::HasSubstr;

class BenchIndexCommand : public CommandTest {
 protected:
  Words bench(const Words& rest) const {
    const Words settings = {"--threads", "1", "--mem-layers", "2,3", "--window", "64", "--quiet", "--text", text_};
    return Words{"bench", "index", "--model", stories()} + settings + rest;
  }
  Words small(const Words& rest) const {
    return bench(Words{"--memory", "512", "--targets", "64", "--stride", "16", "--json"} + rest);
  }
  std::string text_ = write("text.txt", story(500, 1));
};

TEST_F(BenchIndexCommand, MeasuresEveryLookupBesideDense) {
  const nlohmann::json report =
      json_of(small({"--lookups", "exact:k=512", "int8:k=64", "ivf:chunk=256,lists=8,probes=2,k=16"}));
  EXPECT_EQ(report.at("bench"), "index");
  EXPECT_EQ(report.at("complete"), true);
  EXPECT_EQ(report.at("memory_tokens"), 512);
  const nlohmann::json& cells = report.at("cells");
  ASSERT_EQ(cells.size(), 4U);
  EXPECT_EQ(cells[0].at("lookup"), "dense");
  EXPECT_EQ(cells[0].at("perplexity_change"), 0);
  for (const auto& cell : cells) {
    EXPECT_EQ(cell.at("tokens"), 63) << "the first of the window is given";
    EXPECT_GT(cell.at("perplexity"), 1);
    EXPECT_GE(cell.at("mass"), 0);
    EXPECT_LE(cell.at("mass"), 1.0001);
    EXPECT_LE(cell.at("recall"), 1);
  }
  EXPECT_NEAR(cells[1].at("mass"), 1, 1e-5) << "all of 512 keys";
  EXPECT_NEAR(cells[1].at("perplexity_change"), 0, 1e-3);
  EXPECT_EQ(cells[1].at("top_k"), 512);
  EXPECT_EQ(cells[2].at("top_k"), 64);
  EXPECT_GT(cells[2].at("bytes"), 0);
  EXPECT_LT(cells[3].at("scanned"), 0.7) << "2 lists of 8";
  EXPECT_LT(cells[3].at("mass"), cells[1].at("mass"));
}

TEST_F(BenchIndexCommand, AsksForPassKeysAndDrawsAPlot) {
  const nlohmann::json report =
      json_of(small({"--lookups", "exact", "--trials", "2", "--trial-length", "200", "--plot", path("plot.svg")}));
  EXPECT_EQ(report.at("cells").at(1).at("trials"), 2);
  EXPECT_LE(report.at("cells").at(1).at("correct"), 2);
  EXPECT_THAT(read_text(path("plot.svg")), HasSubstr("<svg"));
  const Outcome table = run(bench({"--memory", "256", "--targets", "64", "--lookups", "exact"}));
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("256 tokens in memory, then 64"));
}

TEST_F(BenchIndexCommand, RefusesWhatCannotBe) {
  expect_refused(small({"--index", "ivf"}), {"--index", "--lookups"});
  expect_refused(small({"--lookups", "garbage"}), {"garbage"});
  expect_refused(small({"--lookups", "auto"}), {"lookup 'auto'", "by name"});
  expect_refused(small({"--lookups", "exact:k=0"}), {"exact:k=0", "k from 1"});
  expect_refused(small({"--lookups", "dense:probes=3"}), {"dense:probes=3", "no parameters"});
  expect_refused(small({"--lookups", "ivf:probes=none"}), {"probes"});
  expect_refused(bench({"--targets", "65"}), {"--targets 65", "multiple of the window"});
  expect_refused(bench({"--targets", "64", "--stride", "65"}), {"--stride 65", "at most the window"});
  expect_refused(bench({"--memory", "100000", "--targets", "64"}), {text_, "--memory and --targets"});
  expect_refused(bench({"--memory", "0"}), {"--memory", "'0'"});
  expect_refused(small({"--overlap", "8"}), {"--overlap", "plain windows"});
  expect_refused({"bench", "index", "--model", stories(), "--text", text_}, {stories(), "--mem-layers"});
  expect_refused({"bench", "index", "--model", stories()}, {"--text"});
}

class MemoryIndexCommand : public CommandTest {
 protected:
  Words index(const Words& rest) const {
    return Words{"memory", "index", path("m"), "--threads", "2", "--quiet"} + rest;
  }
  const Words lists_ = {"--index-parameters", "chunk=256,lists=8"};
};

TEST_F(MemoryIndexCommand, OfEachDocumentStoresWhatIngestWouldHave) {
  write("a.txt", story(300, 1));
  write("b.txt", story(100, 2));
  ingest("m", {path("a.txt"), path("b.txt")});
  const MemoryState before = *state_of(path("m"));
  const nlohmann::json report = json_of(index(lists_ + Words{"--each", "--json"}));
  EXPECT_EQ(report.at("index"), "ivf");
  EXPECT_EQ(report.at("documents"), 2);
  EXPECT_EQ(report.at("joint_documents"), 0);
  EXPECT_EQ(report.at("entries"), before.documents[0].tokens + before.documents[1].tokens);
  EXPECT_FALSE(report.at("interrupted"));
  const MemoryState after = *state_of(path("m"));
  for (std::size_t d = 0; d < 2; ++d) {
    EXPECT_TRUE(before.documents[d].indexes.empty());
    EXPECT_EQ(after.documents[d].indexes.size(), 8U) << "2 layers of 4 heads";
    EXPECT_EQ(after.documents[d].windows, before.documents[d].windows) << "nothing is computed again";
  }
  EXPECT_EQ(MemoryFile::open(path("m")).documents()[0].indexes.entries_covered, before.documents[0].tokens);
  // A question finds the same in stored lists as in lists made for it.
  const Words ivf =
      Words{"--index", "ivf", "--top-k", "16"} + Words{"--index-parameters", "chunk=256,lists=8,probes=3"};
  const std::string stored = ask("m", "Once upon", ivf);
  const nlohmann::json asked = json_of(ask_words("m", "Once upon", ivf + Words{"--json"}));
  EXPECT_GT(asked.at("lists_compared_per_query"), 8);
  EXPECT_GT(asked.at("keys_scanned_per_query"), 16);
  EXPECT_LT(asked.at("keys_scanned_per_query"), asked.at("memory_entries").get<double>() / 2);
  EXPECT_FALSE(json_of(ask_words("m", "Once upon", {"--json"})).contains("keys_scanned_per_query"));
  std::filesystem::remove(path("m"));
  ingest("m", {path("a.txt"), path("b.txt")});
  EXPECT_EQ(ask("m", "Once upon", ivf), stored);
}

TEST_F(MemoryIndexCommand, DoesNothingASecondTimeAndGoesOnWithNewDocuments) {
  ingest("m", {write("a.txt", story(200, 1))});
  ASSERT_EQ(run(index(lists_)).exit_code, 0);
  const std::string once = read_text(path("m"));
  const nlohmann::json again = json_of(index(lists_ + Words{"--json"}));
  EXPECT_EQ(again.at("documents"), 0);
  EXPECT_EQ(again.at("bytes"), 0);
  EXPECT_EQ(read_text(path("m")), once);
  ingest("m", {write("b.txt", story(100, 2))});
  EXPECT_EQ(json_of(index(lists_ + Words{"--each", "--json"})).at("documents"), 1);
  EXPECT_EQ(json_of(index({"--index", "int8", "--json"})).at("documents"), 2) << "other lists take their place";
}

/// A memory of three documents of a few hundred tokens.
class JointIndexCommand : public MemoryIndexCommand {
 protected:
  void SetUp() override {
    for (const unsigned seed : {1U, 2U, 3U}) {
      documents_.push_back(write(std::to_string(seed) + ".txt", story(100 + 60 * seed, seed)));
    }
    ingest("m", documents_);
  }
  StoredJointIndex joint() const { return MemoryFile::open(path("m")).joint_index(); }
  std::size_t own_indexes() const {
    const MemoryState state = *state_of(path("m"));
    return static_cast<std::size_t>(std::ranges::count_if(
        state.documents, [](const MemoryState::Document& document) { return !document.indexes.empty(); }));
  }
  /// The answer to a question. By default every list is scanned, and what int8 might hide is scored again.
  nlohmann::json answer(const Words& flags,
                        const std::string& parameters = "chunk=256,lists=8,probes=1000000,rerank=100") const {
    const Words ivf = {"--index", "ivf", "--top-k", "16", "--index-parameters", parameters, "--json"};
    return json_of(ask_words("m", "Once upon a time", ivf + flags));
  }
  nlohmann::json exact_answer(const Words& flags, const std::string& memory = "m") const {
    return json_of(ask_words(memory, "Once upon a time", Words{"--index", "exact", "--top-k", "16", "--json"} + flags));
  }

  Words documents_;
};

TEST_F(JointIndexCommand, CoversAllDocumentsTogetherAndAnswersAsAnExactSearch) {
  const nlohmann::json exact = exact_answer({});
  const nlohmann::json report = json_of(index(lists_ + Words{"--json"}));
  EXPECT_EQ(report.at("documents"), 3);
  EXPECT_EQ(report.at("joint_documents"), 3);
  EXPECT_EQ(report.at("entries"), exact.at("memory_entries"));
  EXPECT_GT(report.at("bytes"), 0);
  EXPECT_FALSE(report.at("interrupted"));
  EXPECT_EQ(own_indexes(), 0U);
  EXPECT_EQ(joint().documents.size(), 3U);
  EXPECT_EQ(joint().blobs.size(), 8U) << "2 layers of 4 heads";
  const nlohmann::json found = answer({});
  EXPECT_EQ(found.at("ids"), exact.at("ids"));
  EXPECT_EQ(found.at("documents"), 3);
  EXPECT_EQ(found.at("joint_documents"), 3);
  EXPECT_EQ(found.at("memory_entries"), exact.at("memory_entries"));
  const nlohmann::json few = answer({}, "chunk=256,lists=8,probes=3");
  EXPECT_LT(few.at("keys_scanned_per_query"), few.at("memory_entries"));
  const Words restricted = {"--documents", "1.txt,2.txt,3.txt"};
  EXPECT_EQ(answer(restricted).at("ids"), exact.at("ids"));
  EXPECT_EQ(answer(restricted).at("joint_documents"), 3);
}

TEST_F(JointIndexCommand, DoesNothingASecondTimeAndCoversNewDocumentsOnceAskedTo) {
  ASSERT_EQ(run(index(lists_)).exit_code, 0);
  const std::string once = read_text(path("m"));
  const nlohmann::json again = json_of(index(lists_ + Words{"--json"}));
  EXPECT_EQ(again.at("documents"), 0);
  EXPECT_EQ(again.at("joint_documents"), 3);
  EXPECT_EQ(again.at("bytes"), 0);
  EXPECT_EQ(read_text(path("m")), once);
  // A new document has lists of its own beside the joint ones.
  ingest("m", {write("4.txt", story(90, 4))});
  EXPECT_EQ(joint().documents.size(), 3U);
  EXPECT_EQ(answer({}).at("ids"), exact_answer({}).at("ids"));
  const Words sources = {"--sources=3"};
  EXPECT_EQ(answer(sources).at("sources").at("documents").size(), 4U);
  EXPECT_EQ(json_of(index(lists_ + Words{"--json"})).at("joint_documents"), 4);
  EXPECT_EQ(joint().documents.size(), 4U);
  EXPECT_EQ(answer({}).at("ids"), exact_answer({}).at("ids"));
  // Other lists take the place of those.
  EXPECT_EQ(json_of(index({"--index-parameters", "chunk=128,lists=8", "--json"})).at("documents"), 4);
}

TEST_F(JointIndexCommand, GivesWayWhereNotAllOfItsDocumentsAreAsked) {
  ASSERT_EQ(run(index(lists_)).exit_code, 0);
  for (const char* documents : {"1.txt", "2.txt,3.txt"}) {
    const Words some = {"--documents", documents};
    EXPECT_EQ(answer(some).at("ids"), exact_answer(some).at("ids")) << documents;
    EXPECT_EQ(answer(some).at("joint_documents"), 0);
  }
  // A question to two of them is that to a memory without a joint index.
  const Words two = {"--documents", "2.txt,3.txt"};
  const nlohmann::json with = answer(two, "chunk=256,lists=8,probes=3");
  std::filesystem::remove(path("m"));
  ingest("m", documents_);
  EXPECT_EQ(answer(two, "chunk=256,lists=8,probes=3").at("ids"), with.at("ids"));
}

TEST_F(JointIndexCommand, KeepsOwnListsAndServesOtherLookupsNot) {
  ASSERT_EQ(run(index(lists_ + Words{"--each"})).exit_code, 0);
  EXPECT_EQ(own_indexes(), 3U);
  EXPECT_TRUE(joint().empty());
  ASSERT_EQ(run(index(lists_)).exit_code, 0);
  EXPECT_EQ(own_indexes(), 3U);
  EXPECT_EQ(joint().documents.size(), 3U);
  EXPECT_EQ(json_of(index({"--index", "int8", "--json"})).at("documents"), 3);
  EXPECT_EQ(joint().documents.size(), 3U);
  for (const char* lookup : {"int8", "exact"}) {
    const Words flags = {"--index", lookup, "--top-k", "16", "--json"};
    EXPECT_EQ(json_of(ask_words("m", "Once upon a time", flags)).at("documents"), 3);
  }
  // Lists of other sizes than asked for are not used.
  const nlohmann::json others = answer({}, "chunk=64,lists=8,probes=1000000,rerank=100");
  EXPECT_EQ(others.at("ids"), exact_answer({}).at("ids"));
  EXPECT_EQ(others.at("joint_documents"), 0);
}

TEST_F(JointIndexCommand, SaysWhereTheAttentionWent) {
  ASSERT_EQ(run(index(lists_)).exit_code, 0);
  ingest("m", {write("0.txt", story(90, 4))});
  const nlohmann::json joint = answer({"--sources=3"}).at("sources");
  const nlohmann::json exact = exact_answer({"--sources=3"}).at("sources");
  ASSERT_EQ(joint.at("documents").size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(joint.at("documents")[i].at("name"), exact.at("documents")[i].at("name"));
    EXPECT_NEAR(joint.at("documents")[i].at("weight"), exact.at("documents")[i].at("weight"), 1e-4);
  }
  EXPECT_EQ(joint.at("spans")[0].at("byte_begin"), exact.at("spans")[0].at("byte_begin"));
}

TEST_F(JointIndexCommand, PutsCoveredDocumentsFirstAndNamesThemRightly) {
  // The document that is not covered has the smallest id.
  {
    MemoryFileWriter writer = MemoryFileWriter::append_to(path("m"));
    CpuExec exec(std::size_t{1});
    Lookup lookup = Lookup::named("ivf");
    lookup.parameters = "chunk=256,lists=8";
    std::vector<DocumentMemory> memories;
    for (const std::uint32_t id : {1U, 2U}) {
      memories.emplace_back(writer.stored().header().shape, Lookup());
      for (const StoredWindow& window : writer.stored().documents()[id].windows) {
        memories.back().append(Segment(writer.stored().header().shape, window.count, window.entries));
      }
    }
    const std::vector<const DocumentMemory*> covered = {&memories[0], &memories[1]};
    JointIndexMaker maker(exec, covered, lookup);
    writer.store_joint_index(std::vector<std::uint32_t>{1, 2}, [&] { return maker.next(); });
  }
  // The same documents in the order in which they are seen: of equal keys, as all have at their start, the first count.
  ingest("n", {documents_[1], documents_[2], documents_[0]});
  const nlohmann::json joint = answer({"--sources=3"}), exact = exact_answer({"--sources=3"}, "n");
  EXPECT_EQ(joint.at("ids"), exact.at("ids"));
  EXPECT_EQ(joint.at("joint_documents"), 2);
  for (std::size_t i = 0; i < 3; ++i) {
    const nlohmann::json &found = joint.at("sources").at("documents")[i],
                         &expected = exact.at("sources").at("documents")[i];
    EXPECT_EQ(found.at("name"), expected.at("name"));
    EXPECT_EQ(found.at("document"), (i + 1) % 3);
    EXPECT_NEAR(found.at("weight"), expected.at("weight"), 1e-4);
  }
}

TEST_F(JointIndexCommand, IsVerifiedWhereItIsUsedAndCountedInThePlan) {
  Lookup lookup = Lookup::named("ivf");
  lookup.parameters = "chunk=256,lists=8";
  const auto planned = [&] {
    const std::vector<std::uint32_t> all = {0, 1, 2};
    return stored_index_bytes(CpuExec(2), MemoryFile::open(path("m")), all, lookup);
  };
  const IndexBytes before = planned();
  EXPECT_EQ(before.mapped, 0U);
  ASSERT_EQ(run(index(lists_)).exit_code, 0);
  EXPECT_EQ(answer({}, lookup.parameters).at("joint_documents"), 3);
  EXPECT_LT(planned().own, before.own) << "nothing is made";
  EXPECT_GT(planned().mapped, 0U);

  const MemoryFile file = MemoryFile::open(path("m"));
  std::string bytes = read_text(path("m"));
  const auto blob = file.joint_index().blobs[5];
  const std::string_view sought(reinterpret_cast<const char*>(blob.data()), blob.size());
  const std::size_t at = bytes.find(sought);
  ASSERT_NE(at, std::string::npos);
  bytes[at + 1000] = static_cast<char>(bytes[at + 1000] ^ 1);
  write("m", bytes);
  const Words ivf = {"--index", "ivf", "--index-parameters", "chunk=256,lists=8", "--documents"};
  EXPECT_EQ(run(ask_words("m", "Once", ivf + Words{"1.txt,2.txt"})).exit_code, 0) << "it is not used";
  expect_refused(ask_words("m", "Once", ivf + Words{"1.txt,2.txt,3.txt"}), {path("m"), "damaged: joint index 5"});
  expect_refused(ask_words("m", "Once"), {path("m"), "damaged"});
}

TEST_F(JointIndexCommand, IsTold) {
  ASSERT_EQ(run(index(lists_)).exit_code, 0);
  const nlohmann::json info = json_of({"info", path("m"), "--json"});
  EXPECT_EQ(info.at("joint_documents"), 3);
  EXPECT_GT(info.at("joint_index_bytes"), 1000);
  const nlohmann::json list = json_of({"memory", "list", path("m"), "--json"});
  EXPECT_EQ(list.at("joint_documents"), 3);
  EXPECT_EQ(list.at("joint_index_bytes"), info.at("joint_index_bytes"));
  const std::string table = run({"memory", "list", path("m")}).out;
  EXPECT_THAT(table, HasSubstr("joint index over 3 documents"));
  EXPECT_THAT(table, ::testing::Not(HasSubstr("memory compact"))) << "nothing to gain";
}

TEST_F(JointIndexCommand, IsLeftOutByCompactAndMergeWhichSaySo) {
  ASSERT_EQ(run(index(lists_)).exit_code, 0);
  const Outcome nothing = run({"memory", "compact", path("m"), "--quiet"});
  EXPECT_EQ(nothing.err, "") << "a joint index alone is nothing to gain";
  EXPECT_EQ(joint().documents.size(), 3U);
  const Outcome merged = run({"memory", "merge", path("into"), path("m"), "--quiet"});
  EXPECT_EQ(merged.exit_code, 0);
  EXPECT_THAT(merged.err, HasSubstr("`memlane memory index " + path("into") + "`"));
  EXPECT_TRUE(MemoryFile::open(path("into")).joint_index().empty());

  const Outcome dropped = run({"memory", "drop", path("m"), "2.txt"});
  EXPECT_THAT(dropped.err, HasSubstr("`memlane memory index " + path("m") + "`"));
  EXPECT_TRUE(joint().empty());
  EXPECT_EQ(answer({}).at("ids"), exact_answer({}).at("ids"));
  ASSERT_EQ(run(index(lists_)).exit_code, 0);
  EXPECT_EQ(joint().documents.size(), 2U);
  const Outcome compacted = run({"memory", "compact", path("m"), "--quiet"});
  EXPECT_EQ(compacted.exit_code, 0);
  EXPECT_THAT(compacted.err, HasSubstr("`memlane memory index " + path("m") + "`"));
  EXPECT_EQ(std::count(compacted.err.begin(), compacted.err.end(), '\n'), 1);
  EXPECT_TRUE(joint().empty());
  EXPECT_EQ(json_of(index(lists_ + Words{"--json"})).at("joint_documents"), 2);
}

TEST_F(JointIndexCommand, IsRefusedByAFileOfAnOlderVersion) {
  // The same documents in a file of version 2.
  {
    const MemoryFile file = MemoryFile::open(path("m"));
    const auto start = format::empty_file(file.header(), 2);
    write("old", {reinterpret_cast<const char*>(start.data()), start.size()});
    MemoryFileWriter writer = MemoryFileWriter::append_to(path("old"));
    for (const StoredDocument& document : file.documents()) writer.copy_document(document);
  }
  const Words old = Words{"memory", "index", path("old"), "--quiet"} + lists_;
  expect_refused(old, {path("old"), "version 2", "memlane memory compact", "--each"});
  EXPECT_EQ(run(old + Words{"--each"}).exit_code, 0);
  ASSERT_EQ(run({"memory", "compact", path("old"), "--quiet"}).exit_code, 0);
  EXPECT_EQ(json_of(old + Words{"--json"}).at("joint_documents"), 3);
}

TEST_F(JointIndexCommand, IsThereWholeOrNotAtAllWhereverItIsStopped) {
  const std::string before = read_text(path("m"));
  bool interrupted = false, finished = false;
  // 0: before it listens, which also leaves the file as it was
  for (int milliseconds = 0; milliseconds < 60000 && !(interrupted && finished);
       milliseconds = std::max(5, 2 * milliseconds)) {
    write("m", before);
    Program program(Invocation{.arguments = index(lists_)});
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    program.send(SIGINT);
    const Outcome outcome = program.finish();
    if (outcome.exit_code == 0) {
      finished = true;
      EXPECT_EQ(joint().documents.size(), 3U);
    } else {
      interrupted = true;
      EXPECT_EQ(read_text(path("m")), before) << outcome.err;
    }
    EXPECT_EQ(run(index(lists_)).exit_code, 0);
    EXPECT_EQ(joint().documents.size(), 3U);
  }
  EXPECT_TRUE(interrupted && finished);
}

TEST_F(JointIndexCommand, OfEachDocumentIsThereWholeOrNotAtAllWhereverItIsStopped) {
  const std::string before = read_text(path("m"));
  const Words each = index(lists_) + Words{"--each"};
  const auto indexed = [&] {
    const MemoryFile file = MemoryFile::open(path("m"));
    return std::ranges::count_if(file.documents(), [](const StoredDocument& document) {
      EXPECT_TRUE(document.indexes.blobs.empty() || document.indexes.entries_covered == document.entries());
      return !document.indexes.blobs.empty();
    });
  };
  bool interrupted = false, finished = false;
  for (int milliseconds = 0; milliseconds < 60000 && !(interrupted && finished);
       milliseconds = std::max(5, 2 * milliseconds)) {
    write("m", before);
    Program program(Invocation{.arguments = each});
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    program.send(SIGINT);
    const bool all = program.finish().exit_code == 0;
    (all ? finished : interrupted) = true;
    EXPECT_EQ(indexed() == 3, all);
    EXPECT_EQ(run(each).exit_code, 0);
    EXPECT_EQ(indexed(), 3);
  }
  EXPECT_TRUE(interrupted && finished);
}

TEST_F(MemoryIndexCommand, IsLeftAsItIsByIngestingTheSameDocumentAgain) {
  for (const char* name : {"ivf", "int8", "Flat"}) {
    const Words documents = {write("a.txt", story(200, 1))}, flags = {"--index", name};
    ingest(name, documents, flags);
    const std::string once = read_text(path(name));
    ingest(name, documents, flags);
    EXPECT_EQ(read_text(path(name)), once) << name;
  }
}

TEST_F(MemoryIndexCommand, RefusesWhatCannotBe) {
  ingest("m", {write("a.txt", story(50, 1))});
  for (const char* name : {"dense", "exact", "Flat", "IVF4,Flat", "auto", "garbage"}) {
    expect_refused(index({"--index", name}), {"--index " + std::string(name), "ivf or int8"});
  }
  for (const char* parameters :
       {"lists=0", "chunk=0", "lists=65537", "chunk=-1", "speed=9", "probes", "lists=8;chunk=9"}) {
    expect_refused(index({"--index-parameters", parameters}), {"index parameters"});
  }
  expect_refused(index({"--index", "int8", "--index-parameters", "lists=8"}), {"index parameters 'lists=8'", "int8"});
  expect_refused({"memory", "index", path("m"), "--threads", "0"}, {"--threads", "'0'"});
  expect_refused({"memory", "index", path("nothing")}, {path("nothing")});
  expect_refused({"memory", "index", path("a.txt")}, {path("a.txt"), "not a memory file"});
  expect_refused({"memory", "index"}, {"memory"});
}

}  // namespace
}  // namespace memlane
