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
  EXPECT_THAT(refusal_with(good_.size() - 10, std::byte{1}), HasSubstr("damaged: record 19 at byte"));
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

TEST_F(MemoryFileDamageTest, IsNotAppendedTo) {
  change(good_.size() - 100, good_[good_.size() - 100] ^ std::byte{4});
  const Bytes damaged = read(path());
  EXPECT_THAT(refusal([&] { MemoryFileWriter::append_to(path()); }), HasSubstr("damaged"));
  EXPECT_EQ(read(path()), damaged);
}

TEST_F(MemoryFileDamageTest, RefusesAnotherVersionNamingBoth) {
  EXPECT_THAT(refusal_with(8, std::byte{6}),
              HasSubstr("memory file of version 4, but this memlane reads versions 1 to 3"));
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
