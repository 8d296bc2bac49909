// Joint indexes in a memory file: stored, read, replaced, left behind.

#include "memory/compaction.h"
#include "memory/memory_file_format.h"
#include "tests/memory/memory_file_fixture.h"

namespace memlane {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

/// Documents 0, 1 and 2: of 6 entries, of 3, and unfinished.
class MemoryFileJointTest : public MemoryFileTest {
 protected:
  using Ids = std::vector<std::uint32_t>;
  using Covered = std::vector<CoveredDocument>;

  static void add_documents(MemoryFileWriter& writer) {
    writer.begin_document(document("novel", 6));
    append(writer, 0, 0, 4);
    append(writer, 0, 4, 2);
    writer.end_document(0);
    writer.begin_document(document("play", 3));
    append(writer, 1, 50, 3);
    writer.end_document(1);
    writer.begin_document(document("draft", 9));
    append(writer, 2, 90, 4);
  }
  MemoryFileJointTest() {
    MemoryFileWriter writer = MemoryFileWriter::create(path(), header());
    add_documents(writer);
  }
  /// The first bytes of the joint index; empty if there is none.
  static std::string first_blob(const MemoryFile& file) {
    if (file.joint_index().empty()) return {};
    const auto blob = file.joint_index().blobs.front();
    return {reinterpret_cast<const char*>(blob.data()), blob.size()};
  }
  std::string first_blob() const { return first_blob(MemoryFile::open(path())); }
};

TEST_F(MemoryFileJointTest, IsReadAsItWasStored) {
  EXPECT_TRUE(MemoryFile::open(path()).joint_index().empty());
  const std::uint64_t before = std::filesystem::file_size(path());
  MemoryFileWriter::append_to(path()).store_joint_index(Ids{0, 1}, blobs("joint"));
  const MemoryFile file = MemoryFile::open(path());
  const StoredJointIndex& joint = file.joint_index();
  EXPECT_EQ(joint.documents, (Covered{{0, 0, 6}, {1, 0, 3}}));
  EXPECT_EQ(joint.entries(), 9U);
  EXPECT_TRUE(joint.covers(0) && joint.covers(1) && !joint.covers(2));
  EXPECT_EQ(joint.file_bytes, file.bytes() - before);
  ASSERT_EQ(joint.blobs.size(), 4U);
  for (std::size_t slot = 0; slot < 4; ++slot) {
    EXPECT_TRUE(std::ranges::equal(joint.blobs[slot], blobs("joint")[slot]));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(joint.blobs[slot].data()) % 64, 0U);
  }
  EXPECT_TRUE(file.is_joint_index_verified());
}

TEST_F(MemoryFileJointTest, IsTheNewestAndStaysWhenOthersCome) {
  MemoryFileWriter writer = MemoryFileWriter::append_to(path());
  writer.store_joint_index(Ids{0, 1}, blobs("old"));
  writer.store_joint_index(Ids{1}, blobs("new"));
  writer.store_indexes(0, 6, blobs("own"));
  append(writer, 2, 94, 4);
  writer.begin_document(document("poem", 1));
  const MemoryFile file = MemoryFile::open(path());
  EXPECT_EQ(first_blob(file), "new 0");
  EXPECT_EQ(file.joint_index().documents, (Covered{{1, 0, 3}}));
  EXPECT_EQ(file.documents()[0].indexes.blobs.size(), 4U) << "those of its own are kept";
}

TEST_F(MemoryFileJointTest, CountsNoLongerOnceADocumentOfItIsDropped) {
  MemoryFileWriter writer = MemoryFileWriter::append_to(path());
  writer.store_joint_index(Ids{0, 1}, blobs("joint"));
  writer.drop_documents(Ids{2});
  EXPECT_EQ(first_blob(), "joint 0") << "it did not cover that one";
  writer.drop_documents(Ids{1});
  EXPECT_EQ(first_blob(), "");
  writer.store_joint_index(Ids{0}, blobs("later"));
  EXPECT_EQ(first_blob(), "later 0");
}

TEST_F(MemoryFileJointTest, CoversWholeDocumentsAlone) {
  MemoryFileWriter writer = MemoryFileWriter::append_to(path());
  for (const Ids& ids : {Ids{}, Ids{2}, Ids{1, 0}, Ids{0, 0}, Ids{0, 3}}) {
    EXPECT_THROW(writer.store_joint_index(ids, blobs("joint")), std::logic_error);
  }
  EXPECT_THROW(writer.store_joint_index(Ids{0}, std::vector<Bytes>(3)), std::logic_error);
  writer.drop_documents(Ids{1});
  EXPECT_THROW(writer.store_joint_index(Ids{0, 1}, blobs("joint")), std::logic_error);
  EXPECT_EQ(first_blob(), "");
}

TEST_F(MemoryFileJointTest, IsRefusedByFilesOfOlderVersionsUntilTheyAreCompacted) {
  for (const std::uint32_t version : {1U, 2U, 3U}) {
    write(path(), format::empty_file(header(), version));
    {
      MemoryFileWriter writer = MemoryFileWriter::append_to(path());
      add_documents(writer);
      EXPECT_THAT(refusal([&] {
                    writer.store_joint_index(Ids{0, 1}, blobs("joint"));
                  }),
                  AllOf(StartsWith(path().string()), HasSubstr(fmt::format("version {}", version)),
                        HasSubstr("memlane memory compact"), HasSubstr("--each")));
      writer.store_indexes(0, 6, blobs("own"));
    }
    EXPECT_TRUE(gains_from_compaction(MemoryFile::open(path())));
    compact(path());
    MemoryFileWriter::append_to(path()).store_joint_index(Ids{0, 1}, blobs("joint"));
    EXPECT_EQ(first_blob(), "joint 0");
  }
}

TEST_F(MemoryFileJointTest, IsVerifiedWhenAskedForWhereOnlyHeadsWere) {
  MemoryFileWriter::append_to(path()).store_joint_index(Ids{0, 1}, blobs("joint"));
  MemoryFile whole = MemoryFile::open_heads(path());
  EXPECT_FALSE(whole.is_joint_index_verified());
  whole.verify_joint_index();
  EXPECT_TRUE(whole.is_joint_index_verified());

  Bytes bytes = read(path());
  const std::string_view text = "joint 2";
  const auto at = std::ranges::search(bytes, std::as_bytes(std::span(text)));
  ASSERT_FALSE(at.empty());
  at.front() ^= std::byte{1};
  write(path(), bytes);
  EXPECT_THAT(refusal_of(path()), HasSubstr("checksum does not match"));
  MemoryFile damaged = MemoryFile::open_heads(path());
  damaged.verify(Ids{0, 1});
  EXPECT_THAT(refusal([&] { damaged.verify_joint_index(); }),
              HasSubstr(fmt::format("damaged: joint index 2 at byte {}: ", at.begin() - bytes.begin())));
  EXPECT_FALSE(damaged.is_joint_index_verified());
}

TEST_F(MemoryFileJointTest, IsLeftOutByCompactionAndByCopies) {
  MemoryFileWriter::append_to(path()).store_joint_index(Ids{0, 1}, blobs("joint"));
  const std::uint64_t of_joint = MemoryFile::open(path()).joint_index().file_bytes;
  EXPECT_EQ(wasted_bytes(MemoryFile::open(path())), 0U);
  EXPECT_FALSE(gains_from_compaction(MemoryFile::open(path()))) << "a joint index is no waste";
  MemoryFileWriter::append_to(path()).store_joint_index(Ids{0, 1}, blobs("joint"));
  EXPECT_EQ(wasted_bytes(MemoryFile::open(path())), of_joint) << "the older one is";
  {
    const MemoryFile file = MemoryFile::open(path());
    MemoryFileWriter copy = MemoryFileWriter::create(folder_.path() / "copy", header());
    copy.copy_document(file.documents()[0]);
    EXPECT_TRUE(MemoryFile::open(folder_.path() / "copy").joint_index().empty());
  }
  const std::uint64_t planned = compacted_bytes(MemoryFile::open(path()));
  compact(path());
  EXPECT_TRUE(MemoryFile::open(path()).joint_index().empty());
  EXPECT_EQ(std::filesystem::file_size(path()), planned);
  EXPECT_FALSE(gains_from_compaction(MemoryFile::open(path())));
}

}  // namespace
}  // namespace memlane
