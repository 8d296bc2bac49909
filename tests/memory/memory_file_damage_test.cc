#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/memory/memory_file_fixture.h"

namespace memlane {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

/// Changes single bytes of a file and expects that somebody notices.
class MemoryFileDamageTest : public MemoryFileTest {
 protected:
  MemoryFileDamageTest() {
    write_small_file(path());
    good_ = read(path());
  }

  void change(std::size_t at, std::byte to) {
    const int fd = ::open(path().c_str(), O_WRONLY | O_CLOEXEC);
    ASSERT_EQ(::pwrite(fd, &to, 1, static_cast<::off_t>(at)), 1);
    ::close(fd);
  }

  std::string refusal_with(std::size_t at, std::byte mask) {
    change(at, good_[at] ^ mask);
    const std::string message = refusal_of(path());
    change(at, good_[at]);
    return message;
  }

  Bytes good_;
};

TEST_F(MemoryFileDamageTest, RefusesAnyFlippedByte) {
  for (std::size_t i = 0; i < good_.size(); ++i) {
    const std::string message = refusal_with(i, std::byte{1} << (i % 8));
    ASSERT_THAT(message, StartsWith(path().string() + ": ")) << "byte " << i;
    ASSERT_EQ(message.find('\n'), std::string::npos) << "byte " << i;
  }
  EXPECT_EQ(contents(path()), kSmallFile);
}

TEST_F(MemoryFileDamageTest, RefusesAnyTruncation) {
  for (std::size_t length = good_.size(); length-- > 0;) {
    std::filesystem::resize_file(path(), length);
    ASSERT_THAT(refusal_of(path()), StartsWith(path().string() + ": ")) << length << " bytes";
  }
}

TEST_F(MemoryFileDamageTest, SaysHowManyBytesATruncatedFileLacks) {
  std::filesystem::resize_file(path(), good_.size() - 1);
  EXPECT_THAT(refusal_of(path()),
              HasSubstr(fmt::format("truncated: {} bytes, {} expected", good_.size() - 1, good_.size())));
}

TEST_F(MemoryFileDamageTest, NamesTheDamagedRecord) {
  EXPECT_THAT(refusal_with(good_.size() - 10, std::byte{1}), HasSubstr("damaged: record 23 at byte"));
}

TEST_F(MemoryFileDamageTest, NamesTheFirstDamagedRecordOfALargeFile) {
  // Large enough for several threads to share the work.
  MemoryFileHeader large = header();
  large.shape = {{0, 1}, 4, 128, DType::f32};
  large.window = 1024;
  const auto file = folder_.path() / "large";
  std::vector<std::size_t> ends;
  {
    MemoryFileWriter writer = MemoryFileWriter::create(file, large);
    writer.begin_document(document("novel", 6 * large.window));
    const std::vector<std::int32_t> ids(large.window);
    const Segment segment(large.shape, ids.size());
    for (int window = 0; window < 6; ++window) {
      writer.append_window(0, ids, segment);
      ends.push_back(writer.commit().length);
    }
  }
  EXPECT_EQ(MemoryFile::open(file).documents().at(0).entries(), 6 * large.window);
  const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  for (const int window : {1, 4, 5}) {
    ASSERT_EQ(::pwrite(fd, "!", 1, static_cast<::off_t>(ends[static_cast<std::size_t>(window)] - 1)), 1);
  }
  ::close(fd);
  EXPECT_THAT(refusal_of(file), HasSubstr("damaged: record 2 at byte"));
}

/// Which bytes of the small file are verified before some documents are used, and which need not be.
class PartlyVerifiedFileTest : public MemoryFileDamageTest {
 protected:
  /// What a document of the file holds once it is verified; why it was refused if it was.
  std::string contents_of(std::uint32_t document) const {
    try {
      MemoryFile file = MemoryFile::open_heads(path());
      file.verify({{document}});
      const std::string all = contents(file);  // a line each
      const auto begin = document == 0 ? 0 : all.find('\n') + 1;
      return all.substr(begin, all.find('\n', begin) - begin);
    } catch (const InputError& error) {
      return error.what();
    }
  }

  /// Bytes of the file whose change is not seen when a document is used.
  std::size_t unseen_changes(std::uint32_t document, std::string_view expected) {
    EXPECT_EQ(contents_of(document), expected);
    std::size_t unseen = 0;
    for (std::size_t i = 0; i < good_.size(); ++i) {
      change(i, good_[i] ^ std::byte{1} << (i % 8));
      const std::string found = contents_of(document);
      EXPECT_TRUE(found == expected || testing::Value(found, StartsWith(path().string() + ": "))) << i << ": " << found;
      unseen += found == expected ? 1U : 0U;
      change(i, good_[i]);
    }
    return unseen;
  }
};

TEST_F(PartlyVerifiedFileTest, RefusesAnyFlippedByteButInBulkOfOtherDocuments) {
  const EntryShape shape = header().shape;
  const auto entries = [&](std::size_t count) { return shape.segment_bytes(count); };
  constexpr std::size_t kIndexes = 4 * std::size_t{64};  // each shorter than a line
  EXPECT_EQ(unseen_changes(0, "novel: 0 1 2 3 | 4 5, index of 6 'flat 0'."), entries(4) + entries(1) + 2 * kIndexes);
  EXPECT_EQ(unseen_changes(1, "play: 50 51 52 53"), entries(4) + entries(2) + entries(1) + 3 * kIndexes);
}

TEST_F(PartlyVerifiedFileTest, RefusesAnyTruncation) {
  for (std::size_t length = good_.size(); length-- > 0;) {
    std::filesystem::resize_file(path(), length);
    ASSERT_THAT(contents_of(1), StartsWith(path().string() + ": ")) << length << " bytes";
  }
}

TEST_F(PartlyVerifiedFileTest, KnowsWhatWasVerifiedAndNamesWhatIsDamaged) {
  MemoryFile file = MemoryFile::open_heads(path());
  EXPECT_FALSE(file.is_verified(0) || file.is_verified(1));
  const auto* window = file.documents()[0].windows[1].entries;
  const auto* index = file.documents()[0].indexes.blobs[2].data();
  const auto* start = good_.data();
  const auto at = [&](const std::byte* needle, std::size_t size) {
    return static_cast<std::size_t>(std::search(start, start + good_.size(), needle, needle + size) - start);
  };
  const std::size_t of_window = at(window, header().shape.segment_bytes(2)), of_index = at(index, 6);
  change(of_window + 3, ~good_[of_window + 3]);
  file.verify({{1}});
  EXPECT_TRUE(file.is_verified(1) && !file.is_verified(0));
  const auto verify = [&] { file.verify({{1, 0}}); };
  EXPECT_THAT(refusal(verify), HasSubstr(fmt::format("damaged: window 1 of document 0 at byte {}: ", of_window)));
  EXPECT_FALSE(file.is_verified(0));
  change(of_window + 3, good_[of_window + 3]);
  change(of_index + 3, ~good_[of_index + 3]);
  EXPECT_THAT(refusal(verify), HasSubstr(fmt::format("damaged: key index 2 of document 0 at byte {}: ", of_index)));
  EXPECT_TRUE(MemoryFile::open_heads(path()).documents()[0].complete);
  EXPECT_THAT(refusal_of(path()), HasSubstr("damaged: record 7 at byte"));
}

TEST_F(MemoryFileDamageTest, IsNotAppendedTo) {
  change(good_.size() - 100, good_[good_.size() - 100] ^ std::byte{4});
  const Bytes damaged = read(path());
  EXPECT_THAT(refusal([&] { MemoryFileWriter::append_to(path()); }), HasSubstr("damaged"));
  EXPECT_EQ(read(path()), damaged);
}

TEST_F(MemoryFileDamageTest, RefusesAnotherVersionNamingBoth) {
  EXPECT_THAT(refusal_with(8, std::byte{1}),
              HasSubstr("memory file of version 5, but this memlane reads versions 1 to 4"));
}

TEST_F(MemoryFileDamageTest, RefusesRecordsOfAnotherFile) {
  // Every checksum of both files is right; only the commit knows which records are its own.
  const auto other = folder_.path() / "other";
  MemoryFileWriter writer = MemoryFileWriter::create(other, header());
  const std::size_t start = std::filesystem::file_size(other);
  writer.begin_document(document("novex", 6));
  const Bytes strange = read(other);
  for (std::size_t i = start; i < strange.size(); ++i) change(i, strange[i]);
  EXPECT_THAT(refusal_of(path()), HasSubstr("not those that were committed"));
}

TEST_F(MemoryFileDamageTest, RefusesWhatIsNoMemoryFile) {
  const auto other = folder_.path() / "other";
  EXPECT_THAT(refusal_of(other), HasSubstr("No such file"));
  write(other, {});
  EXPECT_THAT(refusal_of(other), HasSubstr("not a memory file (it is empty)"));
  write(other, Bytes(20'000, std::byte{'x'}));
  EXPECT_THAT(refusal_of(other), HasSubstr("not a memory file (it does not begin as one)"));
  EXPECT_THAT(refusal([&] { MemoryFileWriter::append_to(other); }), HasSubstr("not a memory file"));
  EXPECT_THAT(refusal_of(folder_.path()), AllOf(HasSubstr("folder"), StartsWith(folder_.path().string())));
  EXPECT_THAT(refusal([&] { MemoryFileWriter::append_to(folder_.path()); }), HasSubstr("name a file"));
  ASSERT_EQ(::mkfifo((folder_.path() / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(refusal_of(folder_.path() / "pipe"), HasSubstr("no regular file"));
}

TEST_F(MemoryFileDamageTest, SaysWhyAFileCannotBeRead) {
  std::filesystem::permissions(path(), std::filesystem::perms::none);
  const ::pid_t child = ::fork();
  if (child == 0) {
    // The superuser may read everything, so be somebody else.
    if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(1);
    const std::string message = refusal_of(path());
    ::_exit(message.find("Permission denied") == std::string::npos ? 2 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace memlane
