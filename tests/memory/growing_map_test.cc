// Windows that a writer stored, where they lie in its file.

#include "memory/growing_map.h"

#include <utility>

#include "tests/memory/memory_file_fixture.h"

namespace memlane {
namespace {

class MappedWindows : public MemoryFileTest {
 protected:
  /// What map_last_window() gave, and what must be there.
  struct Mapped {
    const std::byte* at;
    Segment expected;
  };
  std::vector<Mapped> mapped_;

  void append_and_map(MemoryFileWriter& writer, std::int32_t first, const std::vector<std::size_t>& counts) {
    std::vector<Segment> segments = append_parts(writer, first, counts);
    const std::vector<const std::byte*> at = writer.map_last_window();
    ASSERT_EQ(at.size(), counts.size());
    for (std::size_t i = 0; i < at.size(); ++i) mapped_.push_back({at[i], std::move(segments[i])});
  }

  void expect_all_there() const {
    for (const Mapped& each : mapped_) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(each.at) % 64, 0U);
      EXPECT_EQ(std::memcmp(each.at, each.expected.bytes().data(), each.expected.bytes().size()), 0);
    }
  }
};

TEST_F(MappedWindows, HaveTheStoredBytesForAsLongAsTheWriterLives) {
  MemoryFileWriter writer = MemoryFileWriter::create(path(), header());
  EXPECT_TRUE(writer.map_last_window().empty());
  writer.begin_document(document("novel", 4000));
  for (std::int32_t window = 0; window < 300; ++window) append_and_map(writer, window % 50, {4});
  append_and_map(writer, 7, {2, 2});
  append_and_map(writer, 9, {1});
  expect_all_there();
  const MemoryFileWriter moved = std::move(writer);
  expect_all_there();
}

TEST_F(MappedWindows, OfAContinuedFileAreThoseAppendedNow) {
  {
    MemoryFileWriter writer = MemoryFileWriter::create(path(), header());
    writer.begin_document(document("novel", 40));
    append(writer, 0, 0, 4);
  }
  MemoryFileWriter writer = MemoryFileWriter::append_to(path());
  EXPECT_TRUE(writer.map_last_window().empty());
  append_and_map(writer, 20, {3});
  expect_all_there();
}

TEST_F(MappedWindows, KeepTheirAddressesWhenTheFileOutgrowsAMapping) {
  // Larger than the least piece of a mapping together, and one larger than it alone.
  constexpr std::size_t kMiB = std::size_t{1} << 20;
  WritableFile file = WritableFile::create(path(), {});
  GrowingMap map;
  std::vector<std::pair<const std::byte*, std::byte>> seen;
  std::uint64_t end = 0;
  for (const std::size_t size : {40 * kMiB, 40 * kMiB, kMiB + 64, 100 * kMiB}) {
    const auto mark = static_cast<std::byte>(seen.size() + 1);
    const Bytes bytes(64, mark);
    file.write_at(end, bytes, bytes.size());
    file.write_at(end + size - 64, bytes, bytes.size());
    const std::byte* at = map.at(file, end, size);
    seen.emplace_back(at, mark);
    seen.emplace_back(at + size - 64, mark);
    end += size;
  }
  const GrowingMap moved = std::move(map);
  for (const auto& [at, mark] : seen) EXPECT_EQ(*at, mark);
}

}  // namespace
}  // namespace memlane
