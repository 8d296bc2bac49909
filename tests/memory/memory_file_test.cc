#include "memory/memory_file.h"

#include <array>

#include "memory/compaction.h"
#include "memory/hash.h"
#include "memory/memory_file_format.h"
#include "tests/memory/memory_file_fixture.h"

namespace memlane {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

TEST_F(MemoryFileTest, StartsWithoutDocuments) {
  MemoryFileWriter::create(path(), header());
  const MemoryFile memory = MemoryFile::open(path());
  EXPECT_TRUE(memory.documents().empty());
  EXPECT_EQ(memory.bytes(), std::filesystem::file_size(path()));
}

TEST_F(MemoryFileTest, KeepsEveryHeaderField) {
  MemoryFileWriter::create(path(), header());
  EXPECT_EQ(MemoryFile::open(path()).header(), header());
}

TEST_F(MemoryFileTest, KeepsEveryTypeOfEntriesAndCompute) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    MemoryFileHeader stored = header();
    stored.shape.dtype = dtype;
    stored.compute = dtype == DType::f32 ? "float32" : "bfloat16";
    stored.tokenizer_fingerprint = "";
    stored.lookup = "dense";
    stored.top_k = 0;
    const auto file = folder_.path() / std::string(name_of(dtype));
    MemoryFileWriter::create(file, stored);
    EXPECT_EQ(MemoryFile::open(file).header(), stored);
  }
}

TEST_F(MemoryFileTest, KeepsEveryDocumentFieldWhateverItsBytes) {
  const DocumentInfo info = {0, std::string("a\0\xff\n", 4), "99", ~std::uint64_t{0}, ~std::uint64_t{0} - 1};
  MemoryFileWriter::create(path(), header()).begin_document(info);
  EXPECT_EQ(MemoryFile::open(path()).documents().at(0).info, info);
}

TEST_F(MemoryFileTest, KeepsWindowsOfInterleavedDocuments) {
  write_small_file(path());
  EXPECT_EQ(contents(path()), kSmallFile);
}

TEST_F(MemoryFileTest, KeepsTheNewestIndexesOfADocument) {
  write_small_file(path());
  MemoryFileWriter::append_to(path()).store_indexes(0, 5, blobs("hnsw"));
  const MemoryFile memory = MemoryFile::open(path());
  const StoredIndexes& indexes = memory.documents()[0].indexes;
  EXPECT_EQ(indexes.entries_covered, 5U);
  ASSERT_EQ(indexes.blobs.size(), 4U);
  for (std::size_t slot = 0; slot < 4; ++slot) {
    EXPECT_TRUE(std::ranges::equal(indexes.blobs[slot], blobs("hnsw")[slot]));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(indexes.blobs[slot].data()) % 64, 0U);
  }
}

TEST_F(MemoryFileTest, GoesOnWhereAnEarlierWriterStopped) {
  write_small_file(path());
  {
    MemoryFileWriter writer = MemoryFileWriter::append_to(path());
    EXPECT_EQ(contents(writer.stored()), kSmallFile);
    append(writer, 1, 54, 4);
    append(writer, 1, 58, 1);
    writer.end_document(1);
    EXPECT_EQ(writer.begin_document(document("poem", 1)), 4U) << "ids of dropped documents are not given again";
  }
  EXPECT_EQ(contents(path()),
            "novel: 0 1 2 3 | 4 5, index of 6 'flat 0'.\nplay: 50 51 52 53 | 54 55 56 57 | 58.\ndraft: dropped\n"
            "notes: dropped\npoem:\njoint index of 6 in 0, 'joint 0'\n");
}

TEST_F(MemoryFileTest, StaysMappedWhenItIsMoved) {
  write_small_file(path());
  MemoryFile first = MemoryFile::open(path());
  const MemoryFile second = std::move(first);
  EXPECT_EQ(contents(second), kSmallFile);
}

TEST_F(MemoryFileTest, DoesNotReplaceAFile) {
  write_small_file(path());
  EXPECT_THAT(refusal([&] { MemoryFileWriter::create(path(), header()); }),
              AllOf(StartsWith(path().string()), HasSubstr("exists already")));
  EXPECT_EQ(contents(path()), kSmallFile);
}

TEST_F(MemoryFileTest, DiscardsOnlyAFileWithoutWindows) {
  MemoryFileWriter writer = MemoryFileWriter::create(path(), header());
  writer.begin_document(document("novel", 6));
  EXPECT_TRUE(writer.discard_if_empty());
  EXPECT_FALSE(std::filesystem::exists(path()));

  write_small_file(path());
  EXPECT_FALSE(MemoryFileWriter::append_to(path()).discard_if_empty());
  EXPECT_TRUE(std::filesystem::exists(path()));
}

TEST_F(MemoryFileTest, HasTheSameDigestForTheSameContents) {
  write_small_file(path());
  write_small_file(folder_.path() / "other");
  const MemoryFile first = MemoryFile::open(path());
  EXPECT_EQ(first.commit().digest, MemoryFile::open(folder_.path() / "other").commit().digest);
  MemoryFileWriter::append_to(path()).begin_document(document("poem", 1));
  EXPECT_NE(first.commit().digest, MemoryFile::open(path()).commit().digest);
}

TEST_F(MemoryFileTest, IsTheSameBytesAsEverInVersionFour) {
  write_small_file(path());
  EXPECT_EQ(MemoryFile::open(path()).version(), 4U);
  EXPECT_EQ(fmt::format("{:016x}", checksum(read(path()))), "ca7da27c34b24ef8")
      << "the format changed: give it another version";
}

TEST_F(MemoryFileTest, IsTheSameBytesAsEverInVersionTwo) {
  write(path(), format::empty_file(header(), 2));
  {
    MemoryFileWriter writer = MemoryFileWriter::append_to(path());
    const std::vector<Step> all = steps();
    for (std::size_t step = 0; step < kStepsOfVersionTwo; ++step) all[step](writer);
  }
  EXPECT_EQ(fmt::format("{:016x}", checksum(read(path()))), "6a2a1e2aabf0d527")
      << "the format changed: give it another version";
}

class MemoryFileOfVersionOneTest : public MemoryFileTest {
 protected:
  /// Appended to by today's writer, as a file of the first version would be.
  MemoryFileOfVersionOneTest() {
    write(path(), format::empty_file(header(), 1));
    MemoryFileWriter writer = MemoryFileWriter::append_to(path());
    const std::vector<Step> all = steps();
    for (std::size_t step = 0; step < kStepsOfVersionOne; ++step) all[step](writer);
  }
  static constexpr std::string_view kContents = "novel: 0 1 2 3 | 4 5, index of 6 'flat 0'.\nplay: 50 51 52 53\n";
};

TEST_F(MemoryFileOfVersionOneTest, IsReadAndAppendedToAsEver) {
  EXPECT_EQ(MemoryFile::open(path()).version(), 1U);
  EXPECT_EQ(contents(path()), kContents);
  EXPECT_EQ(fmt::format("{:016x}", checksum(read(path()))), "b85e9aecb503365f") << "the bytes of the first version";
}

TEST_F(MemoryFileOfVersionOneTest, DropsNothingBeforeItIsCompacted) {
  const std::vector<std::uint32_t> second = {1};
  EXPECT_THAT(refusal([&] { MemoryFileWriter::append_to(path()).drop_documents(second); }),
              AllOf(StartsWith(path().string()), HasSubstr("version 1"), HasSubstr("memlane memory compact")));
  EXPECT_EQ(contents(path()), kContents);
  EXPECT_TRUE(gains_from_compaction(MemoryFile::open(path())));
  compact(path());
  EXPECT_EQ(MemoryFile::open(path()).version(), 4U);
  EXPECT_EQ(contents(path()), kContents);
  MemoryFileWriter::append_to(path()).drop_documents(second);
  EXPECT_EQ(contents(path()), "novel: 0 1 2 3 | 4 5, index of 6 'flat 0'.\nplay: dropped\n");
}

TEST(MemoryFileHeader, ListsWhatDiffers) {
  MemoryFileHeader file;
  file.shape = {{2, 3}, 4, 8, DType::bf16};
  MemoryFileHeader asked_for = file;
  asked_for.model_name = "another name is no difference";
  EXPECT_EQ(differences(file, asked_for), "");
  asked_for.shape.layers = {1, 2};
  EXPECT_EQ(differences(file, asked_for), "memory layers 2,3 in the file, 1,2 asked for");
  asked_for.window = 512;
  asked_for.settings["rope_scaling"] = "yarn";
  EXPECT_EQ(differences(file, asked_for),
            "memory layers 2,3 in the file, 1,2 asked for; window 0, 512 asked for; rope_scaling none, yarn asked for");
}

}  // namespace
}  // namespace memlane
