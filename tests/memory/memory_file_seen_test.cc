// Files of documents that were read with the least attended windows evicted: each window is stored with what the next
// one sees.

#include "memory/compaction.h"
#include "memory/memory_file_format.h"
#include "tests/memory/memory_file_fixture.h"

namespace memlane {
namespace {

using testing::HasSubstr;
using Seen = std::vector<SeenWindow>;

class MemoryFileSeenTest : public MemoryFileTest {
 protected:
  static MemoryFileHeader evicting() {
    MemoryFileHeader header = MemoryFileTest::header();
    header.lookup = "dense";
    header.top_k = 0;
    header.settings[kEviction] = "least attended, 8 entries";
    return header;
  }
  /// Windows of 4, 4, 4 and 3 tokens, the second and last of them in two parts.
  static std::vector<Step> evicting_steps() {
    return {[](MemoryFileWriter& writer) { writer.begin_document(document("novel", 15)); },
            [](MemoryFileWriter& writer) {
              append_parts(writer, 0, {4}, {{0, 0, 0}});
            },
            [](MemoryFileWriter& writer) {
              append_parts(writer, 4, {3, 1}, {{0, 1, 0.5}, {1, 0, 0}, {2, 0, 0}});
            },
            [](MemoryFileWriter& writer) {
              append_parts(writer, 8, {4}, {{1, 1, 0.25}, {2, 1, 0}, {3, 0, 0}});
            },
            [](MemoryFileWriter& writer) {
              append_parts(writer, 12, {2, 1}, {{3, 1, 0.125}, {4, 0, 0}, {5, 0, 0}});
            },
            [](MemoryFileWriter& writer) { writer.end_document(0); }};
  }
  void write_evicting() const {
    MemoryFileWriter writer = MemoryFileWriter::create(path(), evicting());
    for (const Step& step : evicting_steps()) step(writer);
  }
  static void expect_seen(const StoredDocument& document) {
    const std::vector<Seen> expected = {{{0, 0, 0}},
                                        {},
                                        {{0, 1, 0.5}, {1, 0, 0}, {2, 0, 0}},
                                        {{1, 1, 0.25}, {2, 1, 0}, {3, 0, 0}},
                                        {},
                                        {{3, 1, 0.125}, {4, 0, 0}, {5, 0, 0}}};
    ASSERT_EQ(document.windows.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(std::ranges::equal(document.windows[i].seen, expected[i])) << i;
    }
  }
};

TEST_F(MemoryFileSeenTest, HoldsWhatWindowsSeeWhereTheHeaderPromisesIt) {
  write_evicting();
  const MemoryFile file = MemoryFile::open(path());
  EXPECT_GE(file.version(), format::kSeenVersion);
  EXPECT_EQ(contents(file), "novel: 0 1 2 3 | 4 5 6 | 7 | 8 9 10 11 | 12 13 | 14.\n");
  expect_seen(file.documents()[0]);
  EXPECT_FALSE(gains_from_compaction(file));
  MemoryFileHeader oldest = evicting();
  for (const char* other : {"oldest, 8 entries", "least attended, 6 entries", "least attended", ""}) {
    oldest.settings[kEviction] = other;
    EXPECT_FALSE(format::entries_seen(oldest)) << other;
  }
}

TEST_F(MemoryFileSeenTest, IsTheSameBytesAsEverInVersionThree) {
  write(path(), format::empty_file(evicting(), 3));
  {
    MemoryFileWriter writer = MemoryFileWriter::append_to(path());
    for (const Step& step : evicting_steps()) step(writer);
  }
  EXPECT_EQ(fmt::format("{:016x}", checksum(read(path()))), "83685aa0fedb7c31")
      << "the format changed: give it another version";
}

TEST_F(MemoryFileSeenTest, KeepsThemWhenCompactedAndCopied) {
  write_evicting();
  {
    MemoryFileWriter writer = MemoryFileWriter::append_to(path());
    writer.begin_document(document("draft", 4));
    writer.drop_documents(std::vector<std::uint32_t>{1});
  }
  const MemoryFile before = MemoryFile::open(path());
  MemoryFileWriter other = MemoryFileWriter::create(folder_.path() / "other", evicting());
  other.copy_document(before.documents()[0]);
  expect_seen(MemoryFile::open(folder_.path() / "other").documents()[0]);
  EXPECT_TRUE(gains_from_compaction(before));
  compact(path());
  const MemoryFile after = MemoryFile::open(path());
  EXPECT_EQ(after.version(), format::kVersion);
  expect_seen(after.documents()[0]);
  EXPECT_EQ(after.commit().digest, MemoryFile::open(folder_.path() / "other").commit().digest);
}

TEST_F(MemoryFileSeenTest, IsContinuedToTheSameBytesAfterAnyStep) {
  write_evicting();
  const Bytes whole = read(path());
  const std::vector<Step> steps = evicting_steps();
  for (std::size_t stop = 0; stop <= steps.size(); ++stop) {
    std::filesystem::remove(path());
    { MemoryFileWriter::create(path(), evicting()); }
    for (std::size_t i = 0; i < stop; ++i) {
      MemoryFileWriter writer = MemoryFileWriter::append_to(path());
      steps[i](writer);
    }
    MemoryFileWriter writer = MemoryFileWriter::append_to(path());
    for (std::size_t i = stop; i < steps.size(); ++i) steps[i](writer);
    EXPECT_EQ(read(path()), whole) << stop;
  }
}

TEST_F(MemoryFileSeenTest, DetectsEveryFlippedByteOfThem) {
  write_evicting();
  const Bytes whole = read(path());
  const MemoryFile file = MemoryFile::open(path());
  const auto* begin = reinterpret_cast<const std::byte*>(file.documents()[0].windows[3].seen.data());
  const auto* ids = reinterpret_cast<const std::byte*>(file.documents()[0].windows[3].ids.data());
  const std::size_t bytes = static_cast<std::size_t>(begin - ids) + 3 * sizeof(SeenWindow);
  const auto at = std::search(whole.begin(), whole.end(), ids, ids + bytes);
  ASSERT_NE(at, whole.end());
  for (std::size_t i = 0; i < bytes; ++i) {
    Bytes damaged = whole;
    damaged[static_cast<std::size_t>(at - whole.begin()) + i] ^= std::byte{16};
    write(folder_.path() / "damaged", damaged);
    EXPECT_THAT(refusal_of(folder_.path() / "damaged"), HasSubstr("checksum does not match"));
  }
}

TEST_F(MemoryFileSeenTest, AreNotPromisedByAnOlderVersion) {
  write(path(), format::empty_file(evicting(), 2));
  EXPECT_THAT(refusal_of(path()), HasSubstr("version 2 cannot hold"));
}

TEST_F(MemoryFileSeenTest, AreStoredWhereTheyArePromisedAndNowhereElse) {
  MemoryFileWriter plain = MemoryFileWriter::create(path(), header());
  plain.begin_document(document("novel", 8));
  EXPECT_THROW(append_parts(plain, 0, {4}, {{0, 0, 0}}), std::logic_error);
  MemoryFileWriter writer = MemoryFileWriter::create(folder_.path() / "evicting", evicting());
  writer.begin_document(document("novel", 8));
  EXPECT_THROW(append_parts(writer, 0, {4}, {}), std::logic_error);
  EXPECT_THROW(append_parts(writer, 0, {3}, {{0, 0, 0}}), std::logic_error) << "not a whole window";
  append_parts(writer, 0, {4}, {{0, 0, 0}});
}

}  // namespace
}  // namespace memlane
