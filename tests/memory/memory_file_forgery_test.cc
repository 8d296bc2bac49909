#include <cstdint>
#include <functional>
#include <limits>

#include "memory/memory_file_format.h"
#include "memory/memory_file_header.h"
#include "tests/memory/memory_file_fixture.h"

namespace memlane {
namespace {

using namespace format;
using testing::HasSubstr;

constexpr std::uint64_t kHuge = std::uint64_t{1} << 60;

/// Writes files whose checksums are all right, whatever they say.
class Forgery {
 public:
  explicit Forgery(const MemoryFileHeader& header) : Forgery(header_to_json(header)) {}
  explicit Forgery(const std::string& json, std::uint32_t version = kVersion) {
    Preamble preamble{};
    preamble.magic = kMagic;
    preamble.version = version;
    preamble.header_bytes = static_cast<std::uint32_t>(json.size());
    preamble.header_checksum = checksum(std::as_bytes(std::span(json)));
    seal(preamble);
    commits_offset_ = round_up(sizeof preamble + json.size(), kBlock);
    bytes_.resize(records_offset(commits_offset_));
    std::memcpy(bytes_.data(), &preamble, sizeof preamble);
    std::memcpy(bytes_.data() + sizeof preamble, json.data(), json.size());
    commit_ = {1, bytes_.size(), 0, preamble.checksum};
  }

  using Change = std::function<void(RecordHeader&)>;
  /// Adds a record; `change` alters its header before that is sealed.
  template <class Head>
  Forgery& add(RecordType type, const Head& head, std::string_view rest = {}, std::size_t body_bytes = 0,
               const Change& change = {}) {
    Bytes front(sizeof head + rest.size());
    std::memcpy(front.data(), &head, sizeof head);
    std::ranges::copy(std::as_bytes(std::span(rest)), front.begin() + sizeof head);
    const Bytes body(body_bytes, std::byte{1});
    RecordHeader header{};
    header.magic = kRecordMagic;
    header.type = type;
    header.number = commit_.records;
    header.head_bytes = front.size();
    header.body_bytes = body.size();
    header.head_checksum = checksum(front);
    header.body_checksum = checksum(body);
    if (change) change(header);
    seal(header);
    append(std::as_bytes(std::span(&header, 1)));
    append(front);
    append(body);
    ++commit_.records;
    commit_.length = bytes_.size();
    commit_.digest = extend_digest(commit_.digest, header);
    return *this;
  }
  Forgery& begin(std::uint32_t id, std::uint64_t tokens = 100) {
    return add(RecordType::begin_document, BeginDocumentHead{id, 1, 0, 0, 0, tokens}, "n");
  }
  Forgery& window(std::uint32_t document, std::uint32_t index, std::uint64_t count, std::size_t ids, std::size_t body) {
    return add(RecordType::window, WindowHead{document, index, count}, std::string(ids * 4, '\0'), body);
  }
  /// A window of `ids` entries with what the next one sees; `padding` goes between them.
  Forgery& window_seen(std::uint32_t index, std::size_t ids, std::size_t body, const std::vector<SeenWindow>& seen,
                       std::string padding = {}) {
    const std::string listed(reinterpret_cast<const char*>(seen.data()), seen.size() * sizeof(SeenWindow));
    return add(RecordType::window, WindowHead{0, index, ids}, std::string(ids * 4, '\0') + padding + listed, body);
  }
  Forgery& drop(std::uint32_t document, std::uint32_t zero = 0, std::size_t body = 0) {
    return add(RecordType::drop_document, DropDocumentHead{document, zero}, {}, body);
  }
  Forgery& index(std::uint32_t document, std::uint32_t slot, std::uint64_t covered) {
    return add(RecordType::index, IndexHead{document, slot, covered}, {}, 10);
  }
  /// A record of a joint index that covers documents; `rest` follows them.
  Forgery& joint(std::uint32_t slot, const std::vector<CoveredDocument>& covered, std::string_view rest = {}) {
    const std::string listed(reinterpret_cast<const char*>(covered.data()), covered.size() * sizeof(CoveredDocument));
    return add(RecordType::joint_index, JointIndexHead{slot, static_cast<std::uint32_t>(covered.size())},
               listed + std::string(rest), 10);
  }
  Forgery& commit(const std::function<void(Commit&)>& change) {
    change(commit_);
    return *this;
  }

  void write(const std::filesystem::path& path) {
    Commit older = commit_;
    --older.sequence;
    for (const Commit& commit : {older, commit_}) {
      const CommitSlot slot = make_commit_slot(commit);
      std::memcpy(bytes_.data() + slot_offset(commits_offset_, commit.sequence), &slot, sizeof slot);
    }
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes_.data()), static_cast<std::streamsize>(bytes_.size()));
  }

 private:
  void append(std::span<const std::byte> part) {
    bytes_.insert(bytes_.end(), part.begin(), part.end());
    bytes_.resize(round_up(bytes_.size(), kAlignment));
  }

  Bytes bytes_;
  std::uint64_t commits_offset_ = 0;
  Commit commit_;
};

class MemoryFileForgeryTest : public MemoryFileTest {
 protected:
  static Forgery forgery() { return Forgery(header()); }
  static std::size_t entry_bytes(std::size_t count) { return header().shape.segment_bytes(count); }

  std::string refusal_of_forgery(Forgery& forgery) {
    forgery.write(path());
    return refusal_of(path());
  }
  std::string refusal_of_header(std::string_view from, std::string_view to) {
    std::string json = header_to_json(header());
    const std::size_t found = json.find(from);
    EXPECT_NE(found, std::string::npos) << json;
    json.replace(found, from.size(), to);
    Forgery forged(json);
    return refusal_of_forgery(forged);
  }
};

TEST_F(MemoryFileForgeryTest, AcceptsAForgeryThatMakesSense) {
  forgery()
      .begin(0)
      .window(0, 0, 4, 4, entry_bytes(4))
      .index(0, 0, 4)
      .index(0, 1, 4)
      .index(0, 2, 4)
      .index(0, 3, 4)
      .write(path());
  EXPECT_EQ(MemoryFile::open(path()).documents().at(0).windows.size(), 1U);
}

TEST_F(MemoryFileForgeryTest, RefusesPartsThatRunPastTheEnd) {
  for (const std::uint64_t size : {std::uint64_t{65}, kHuge, std::numeric_limits<std::uint64_t>::max(),
                                   std::numeric_limits<std::uint64_t>::max() - 62, kHuge * 15 + (kHuge - 64)}) {
    const BeginDocumentHead head = {0, 0, 0, 0, 0, 1};
    auto forged =
        forgery().add(RecordType::begin_document, head, {}, 0, [&](auto& record) { record.head_bytes = size; });
    EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("its head runs past the end"));
    forged = forgery().add(RecordType::begin_document, head, {}, 0, [&](auto& record) { record.body_bytes = size; });
    EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("its body runs past the end"));
  }
}

TEST_F(MemoryFileForgeryTest, RefusesRecordsThatAreNotWhatTheySay) {
  const EndDocumentHead end = {0, 0, 0};
  auto forged = forgery().add(RecordType{9}, end);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("unknown type 9"));
  forged = forgery().add(RecordType::end_document, end, {}, 0, [](auto& record) { record.number = 5; });
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("says that it is record 5"));
  forged = forgery().add(RecordType::end_document, end, {}, 0, [](auto& record) { record.zero = 1; });
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("unknown fields"));
  forged = forgery().add(RecordType::window, std::uint32_t{0});
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("its head is too short"));
}

TEST_F(MemoryFileForgeryTest, RefusesDocumentsOutOfPlace) {
  auto forged = forgery().begin(1);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("documents are out of order"));
  forged = forgery().window(0, 0, 1, 1, entry_bytes(1));
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("unknown document"));
  forged = forgery().begin(0).add(RecordType::end_document, EndDocumentHead{0, 0, 100});
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("before all its tokens are there"));
  forged =
      forgery().begin(0, 1).window(0, 0, 1, 1, entry_bytes(1)).add(RecordType::end_document, EndDocumentHead{0, 0, 1});
  forged.window(0, 1, 1, 1, entry_bytes(1));
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("after the document's end"));
}

TEST_F(MemoryFileForgeryTest, RefusesAbsurdNames) {
  for (const std::uint32_t size : {2U, 5000U, std::numeric_limits<std::uint32_t>::max()}) {
    auto forged = forgery().add(RecordType::begin_document, BeginDocumentHead{0, size, 0, 0, 0, 1}, "n");
    EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("record 0"));
    forged = forgery().add(RecordType::begin_document, BeginDocumentHead{0, 1, size, 0, 0, 1}, "n");
    EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("record 0"));
  }
}

TEST_F(MemoryFileForgeryTest, RefusesAbsurdWindows) {
  auto forged = forgery().begin(0).window(0, 1, 1, 1, entry_bytes(1));
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("windows are out of order"));
  for (const std::uint64_t count :
       {std::uint64_t{0}, std::uint64_t{5}, kHuge, std::numeric_limits<std::uint64_t>::max()}) {
    forged = forgery().begin(0, kHuge).window(0, 0, count, 1, entry_bytes(1));
    EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("number of entries is out of bounds"));
  }
  forged = forgery().begin(0).window(0, 0, 2, 1, entry_bytes(2));
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("not one token id for each entry"));
  forged = forgery().begin(0).window(0, 0, 2, 2, entry_bytes(2) - 64);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("entries have a wrong size"));
  forged = forgery().begin(0, 1).window(0, 0, 2, 2, entry_bytes(2));
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("more entries than the document has tokens"));
  forged = forgery().begin(0).add(RecordType::window, WindowHead{0, 0, 1}, "\xff\xff\xff\xff", entry_bytes(1));
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("negative token id"));
}

TEST_F(MemoryFileForgeryTest, RefusesIncompleteSetsOfIndexes) {
  auto forged = forgery().begin(0).index(0, 0, 0).index(0, 1, 0);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("ends within a set of key indexes"));
  forged = forgery().begin(0).index(0, 0, 0).begin(1);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("an incomplete set of key indexes"));
  forged = forgery().begin(0).index(0, 0, 0).index(0, 2, 0);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("out of order"));
  forged = forgery().begin(0).begin(1).index(0, 0, 0).index(1, 1, 0);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("another set"));
  forged = forgery().begin(0).index(0, 0, 1);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("covers more entries than there are"));
}

TEST_F(MemoryFileForgeryTest, RefusesDropsOutOfPlace) {
  auto forged = forgery().begin(0).drop(1);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("unknown document"));
  forged = forgery().begin(0).drop(0).drop(0);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("a document that was dropped"));
  forged = forgery().begin(0).drop(0).window(0, 0, 1, 1, entry_bytes(1));
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("a document that was dropped"));
  forged = forgery().begin(0).drop(0).index(0, 0, 0);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("a document that was dropped"));
  forged = forgery().begin(0).index(0, 0, 0).drop(0);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("an incomplete set of key indexes"));
  forged = forgery().begin(0).drop(0, 1);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("unknown fields"));
  forged = forgery().begin(0).drop(0, 0, 5);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("unknown fields"));
  forged = Forgery(header_to_json(header()), 1).begin(0).drop(0);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("unknown type 5"));
}

/// Joint indexes of documents 0, 1 and 2 of 2 entries each, of which 1 is not complete.
class ForgeryOfJointIndexes : public MemoryFileForgeryTest {
 protected:
  using Covered = std::vector<CoveredDocument>;
  static Forgery three(std::uint32_t version = kVersion) {
    Forgery forged(header_to_json(header()), version);
    for (std::uint32_t id = 0; id < 3; ++id) {
      forged.begin(id, id == 1 ? 100 : 2).window(id, 0, 2, 2, entry_bytes(2));
      if (id != 1) forged.add(RecordType::end_document, EndDocumentHead{id, 0, 2});
    }
    return forged;
  }
  std::string refusal_of_covered(const Covered& covered) {
    Forgery forged = three();
    return refusal_of_forgery(forged.joint(0, covered).joint(1, covered).joint(2, covered).joint(3, covered));
  }
};

TEST_F(ForgeryOfJointIndexes, AreAcceptedIfTheyMakeSense) {
  const Covered both = {{0, 0, 2}, {2, 0, 2}};
  three().joint(0, both).joint(1, both).joint(2, both).joint(3, both).write(path());
  const MemoryFile file = MemoryFile::open(path());
  EXPECT_EQ(file.joint_index().documents, both);
  EXPECT_EQ(file.joint_index().blobs.size(), 4U);
}

TEST_F(ForgeryOfJointIndexes, AreRefusedIfTheyDoNotCoverWholeDocuments) {
  EXPECT_THAT(refusal_of_covered({}), HasSubstr("covers no or too many documents"));
  EXPECT_THAT(refusal_of_covered({{0, 0, 2}, {0, 0, 2}}), HasSubstr("out of order"));
  EXPECT_THAT(refusal_of_covered({{2, 0, 2}, {0, 0, 2}}), HasSubstr("out of order"));
  EXPECT_THAT(refusal_of_covered({{0, 0, 2}, {3, 0, 2}}), HasSubstr("covers an unknown document"));
  EXPECT_THAT(refusal_of_covered({{0xFFFFFFFF, 0, 2}}), HasSubstr("covers an unknown document"));
  EXPECT_THAT(refusal_of_covered({{0, 1, 2}}), HasSubstr("unknown fields"));
  EXPECT_THAT(refusal_of_covered({{0, 0, 2}, {1, 0, 2}}), HasSubstr("covers a document before its end"));
  for (const std::uint64_t entries : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{3}, kHuge}) {
    EXPECT_THAT(refusal_of_covered({{0, 0, entries}}), HasSubstr("covers not all entries of a document"));
  }
  const Covered all = {{0, 0, 2}, {1, 0, 2}, {2, 0, 2}, {3, 0, 2}};
  EXPECT_THAT(refusal_of_covered(all), HasSubstr("covers no or too many documents"));
  Forgery forged = three().drop(2).joint(0, {{0, 0, 2}, {2, 0, 2}});
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("covers a document that was dropped"));
  forged = three().begin(3, 0).add(RecordType::end_document, EndDocumentHead{3, 0, 0}).joint(0, {{3, 0, 0}});
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("covers not all entries of a document"));
}

TEST_F(ForgeryOfJointIndexes, AreRefusedIfTheirHeadsHaveWrongSizes) {
  for (const std::uint32_t documents : {2U, 3U, 4U, 0xFFFFFFFFU}) {
    Forgery forged = three().add(RecordType::joint_index, JointIndexHead{0, documents}, std::string(16, '\0'), 10);
    EXPECT_THAT(refusal_of_forgery(forged), HasSubstr(documents <= 3 ? "head has a wrong size" : "too many documents"));
  }
  Forgery forged = three().joint(0, {{0, 0, 2}}, "x");
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("head has a wrong size"));
  forged = three().add(RecordType::joint_index, std::uint32_t{0});
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("head is too short"));
}

TEST_F(ForgeryOfJointIndexes, AreRefusedIfTheirSetIsIncomplete) {
  const Covered one = {{0, 0, 2}}, other = {{2, 0, 2}};
  Forgery forged = three().joint(0, one).joint(1, one);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("ends within a set of key indexes"));
  forged = three().joint(0, one).begin(3);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("an incomplete set of key indexes"));
  forged = three().joint(0, one).index(0, 1, 2);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("an incomplete set of key indexes"));
  forged = three().index(0, 0, 2).joint(1, one);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("an incomplete set of key indexes"));
  forged = three().joint(0, one).drop(0);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("an incomplete set of key indexes"));
  forged = three().joint(1, one);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("out of order"));
  forged = three().joint(0, one).joint(2, one);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("out of order"));
  forged = three().joint(0, one).joint(1, other);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("another set"));
}

TEST_F(ForgeryOfJointIndexes, AreUnknownToOlderVersions) {
  for (const std::uint32_t version : {1U, 2U, 3U}) {
    Forgery forged = three(version).joint(0, {{0, 0, 2}});
    EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("unknown type 6"));
  }
}

TEST_F(MemoryFileForgeryTest, RefusesCommitsThatDoNotFit) {
  auto forged = forgery().begin(0).commit([](Commit& commit) { commit.length = kHuge; });
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("truncated"));
  forged = forgery().begin(0).commit([](Commit& commit) { commit.length -= 1; });
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("damaged"));
  forged = forgery().begin(0).commit([](Commit& commit) { commit.length = 0; });
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("commit slots"));
  forged = forgery().begin(0).commit([](Commit& commit) { commit.records = 2; });
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("not those that were committed"));
  forged = forgery().begin(0).commit([](Commit& commit) { ++commit.digest; });
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("not those that were committed"));
}

TEST_F(MemoryFileForgeryTest, RefusesAbsurdShapes) {
  EXPECT_THAT(refusal_of_header("\"kv_heads\":2", "\"kv_heads\":0"), HasSubstr("0 key/value heads"));
  EXPECT_THAT(refusal_of_header("\"kv_heads\":2", "\"kv_heads\":1152921504606846976"), HasSubstr("key/value heads"));
  EXPECT_THAT(refusal_of_header("\"head_dim\":3", "\"head_dim\":65537"), HasSubstr("head_dim 65537"));
  EXPECT_THAT(refusal_of_header("\"window\":4", "\"window\":0"), HasSubstr("a window of 0 tokens"));
  EXPECT_THAT(refusal_of_header("[1,3]", "[]"), HasSubstr("0 memory layers"));
  EXPECT_THAT(refusal_of_header("[1,3]", "[3,1]"), HasSubstr("memory layers 3,1"));
  EXPECT_THAT(refusal_of_header("[1,3]", "[1,70000]"), HasSubstr("not a layer"));
  EXPECT_THAT(refusal_of_header("\"kv_heads\":2,", "\"kv_heads\":65536,\"x\":1,"), HasSubstr("does not know"));
}

/// Files that promise what windows see: of windows of 4 entries, 8 are kept.
class ForgeryOfSeenWindows : public MemoryFileForgeryTest {
 protected:
  using Seen = std::vector<SeenWindow>;
  static Forgery evicting(std::uint64_t tokens = 100) {
    MemoryFileHeader header = MemoryFileTest::header();
    header.settings["evict"] = "least attended, 8 entries";
    Forgery forged(header);
    forged.begin(0, tokens);
    return forged;
  }
  static Forgery& add(Forgery& forged, std::uint32_t index, std::size_t ids, const Seen& seen,
                      const std::string& padding = {}) {
    return forged.window_seen(index, ids, entry_bytes(ids), seen, padding);
  }
  std::string refusal_of_windows(const std::vector<std::pair<std::size_t, Seen>>& windows) {
    Forgery forged = evicting();
    std::uint32_t index = 0;
    for (const auto& [ids, seen] : windows) {
      add(forged, index++, ids, seen, seen.empty() || ids % 2 == 0 ? "" : std::string(4, '\0'));
    }
    return refusal_of_forgery(forged);
  }
};

TEST_F(ForgeryOfSeenWindows, IsAcceptedIfItMakesSense) {
  Forgery forged = evicting(7);
  add(forged, 0, 4, {{0, 0, 0}});
  add(forged, 1, 3, {{0, 1, 0.5}, {1, 0, 0}}, std::string(4, '\0'));
  forged.write(path());
  EXPECT_EQ(MemoryFile::open(path()).documents().at(0).windows.at(1).seen.size(), 2U);
}

TEST_F(ForgeryOfSeenWindows, IsRefusedWithTheFaultOfItsList) {
  EXPECT_THAT(refusal_of_windows({{4, {{0, 0, 0}}}, {4, {{0, 1, 7}, {1, 0, 0}}}}),
              AllOf(testing::StartsWith(path().string()), HasSubstr("record 2 at byte"), HasSubstr("from 0 to 1")));
  EXPECT_THAT(refusal_of_windows({{4, {{9, 0, 0}}}}), HasSubstr("out of order"));
  EXPECT_THAT(refusal_of_windows({{4, {{0, 0, 0}}}, {4, {{1, 0, 0}}}, {4, {{0, 2, 0}, {2, 0, 0}}}}),
              HasSubstr("seen again"));
  EXPECT_THAT(
      refusal_of_windows({{4, {{0, 0, 0}}}, {4, {{0, 1, 0}, {1, 0, 0}}}, {4, {{0, 2, 0}, {1, 1, 0}, {2, 0, 0}}}}),
      HasSubstr("more entries"));
}

TEST_F(ForgeryOfSeenWindows, IsRefusedWhereAListIsMissingOrOutOfPlace) {
  EXPECT_THAT(refusal_of_windows({{4, {}}}), HasSubstr("does not say what the next window sees"));
  EXPECT_THAT(refusal_of_windows({{2, {{0, 0, 0}}}}), HasSubstr("unknown fields"));
  EXPECT_THAT(refusal_of_windows({{3, {}}, {3, {}}}), HasSubstr("part of two windows"));
  EXPECT_THAT(refusal_of_windows({{2, {}}}), HasSubstr("ends within a window"));
}

TEST_F(ForgeryOfSeenWindows, IsRefusedIfItsBytesAreNoList) {
  Forgery forged = evicting();
  add(forged, 0, 4, {{0, 0, 0}}, "x");
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("wrong size"));
  forged = evicting(3);
  add(forged, 0, 3, {{0, 0, 0}}, "xxxx");
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("not zero"));
  forged = evicting(3);
  add(forged, 0, 3, {}, std::string(4, '\0'));
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("wrong size"));
}

TEST_F(MemoryFileForgeryTest, RefusesEntriesTooLargeForAnyFile) {
  MemoryFileHeader largest = header();
  largest.shape.layers.resize(4096);
  for (int i = 0; i < 4096; ++i) largest.shape.layers[static_cast<std::size_t>(i)] = i;
  largest.shape.kv_heads = 65536;
  largest.shape.head_dim = 65536;
  largest.window = std::size_t{1} << 30;
  Forgery forged(largest);
  EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("windows of"));
}

TEST_F(MemoryFileForgeryTest, RefusesHeadersThatAreNotTheirFields) {
  EXPECT_THAT(refusal_of_header("\"window\":4", "\"window\":-4"),
              HasSubstr("\"window\" in its header is not a whole number"));
  EXPECT_THAT(refusal_of_header("\"window\":4", "\"window\":4.5"), HasSubstr("not a whole number"));
  EXPECT_THAT(refusal_of_header("\"window\":4", "\"window\":1e99"), HasSubstr("not a whole number"));
  EXPECT_THAT(refusal_of_header("\"window\":4", "\"window\":99999999999999999999"), HasSubstr("not a whole number"));
  EXPECT_THAT(refusal_of_header("\"window\":4", "\"windows\":4"), HasSubstr("lacks \"window\""));
  EXPECT_THAT(refusal_of_header("\"bfloat16\"", "\"int8\""), HasSubstr("unknown type \"int8\""));
  EXPECT_THAT(refusal_of_header("\"float32\"", "\"float64\""), HasSubstr("compute \"float64\""));
  EXPECT_THAT(refusal_of_header("0123", "wxyz"), HasSubstr("not hexadecimal"));
  for (const std::string& json : {std::string("[]"), std::string(""), std::string("{"), std::string(100'000, '[')}) {
    Forgery forged(json);
    EXPECT_THAT(refusal_of_forgery(forged), HasSubstr("not a JSON object"));
  }
}

}  // namespace
}  // namespace memlane
