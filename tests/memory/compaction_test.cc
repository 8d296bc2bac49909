#include "memory/compaction.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>

#include "tests/memory/faulty_calls.h"
#include "tests/memory/memory_file_fixture.h"

namespace memlane {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

/// Counts the calls that change files, and does something at one of them.
FileCalls counted_calls(int& calls, int at, const std::function<void()>& then) {
  const auto count = [&calls, at, then] {
    if (calls++ == at) then();
  };
  FileCalls counted;
  counted.pwrite = [count](int fd, const void* data, std::size_t size, ::off_t offset) {
    count();
    return ::pwrite(fd, data, size, offset);
  };
  counted.fdatasync = [count](int fd) {
    count();
    return ::fdatasync(fd);
  };
  counted.fsync = [count](int fd) {
    count();
    return ::fsync(fd);
  };
  counted.ftruncate = [count](int fd, ::off_t length) {
    count();
    return ::ftruncate(fd, length);
  };
  counted.replace = [count](const char* from, const char* to) {
    count();
    return ::rename(from, to);
  };
  return counted;
}

class CompactionTest : public MemoryFileTest {
 protected:
  CompactionTest() { write_small_file(path()); }

  static constexpr std::string_view kCompacted = "novel: 0 1 2 3 | 4 5, index of 6 'flat 0'.\nplay: 50 51 52 53\n";
  std::filesystem::path left_over() const { return path().string() + ".new"; }
  std::size_t files() const {
    const std::filesystem::directory_iterator all(folder_.path());
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
  }
};

TEST_F(CompactionTest, KeepsWhatIsNeededAndNothingElse) {
  const std::uint64_t planned = compacted_bytes(MemoryFile::open(path()));
  EXPECT_TRUE(gains_from_compaction(MemoryFile::open(path())));
  compact(path());
  EXPECT_EQ(contents(path()), kCompacted);
  EXPECT_EQ(std::filesystem::file_size(path()), planned) << "to the byte";
  EXPECT_EQ(MemoryFile::open(path()).header(), header());
  EXPECT_EQ(files(), 1U);
  EXPECT_FALSE(gains_from_compaction(MemoryFile::open(path())));
  const Bytes once = read(path());
  compact(path());
  EXPECT_EQ(read(path()), once);
}

TEST_F(CompactionTest, KeepsTheNewestIndexOnly) {
  {
    MemoryFileWriter writer = MemoryFileWriter::append_to(path());
    writer.store_indexes(0, 5, blobs("newer"));
  }
  const std::uint64_t before = std::filesystem::file_size(path());
  compact(path());
  EXPECT_EQ(contents(path()), "novel: 0 1 2 3 | 4 5, index of 5 'newer 0'.\nplay: 50 51 52 53\n");
  EXPECT_LT(std::filesystem::file_size(path()), before);
}

TEST_F(CompactionTest, LeavesAFileThatCanBeAppendedTo) {
  compact(path());
  MemoryFileWriter writer = MemoryFileWriter::append_to(path());
  append(writer, 1, 54, 4);
  append(writer, 1, 58, 1);
  writer.end_document(1);
  EXPECT_EQ(writer.begin_document(document("poem", 1)), 2U);
  EXPECT_EQ(contents(path()),
            "novel: 0 1 2 3 | 4 5, index of 6 'flat 0'.\nplay: 50 51 52 53 | 54 55 56 57 | 58.\npoem:\n");
}

TEST_F(CompactionTest, KeepsPermissionsLinksAndWhatReadersHaveOpen) {
  ASSERT_EQ(::chmod(path().c_str(), 0600), 0);
  const MemoryFile reader = MemoryFile::open(path());
  const auto link = folder_.path() / "link";
  std::filesystem::create_symlink("book.mem", link);
  compact(link);
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(contents(link), kCompacted);
  EXPECT_EQ(contents(path()), kCompacted);
  EXPECT_EQ(contents(reader), kSmallFile);
  EXPECT_EQ(std::filesystem::status(path()).permissions(), std::filesystem::perms(0600));
}

TEST_F(CompactionTest, WaitsForNoWriterAndAdmitsNone) {
  {
    const MemoryFileWriter writer = MemoryFileWriter::append_to(path());
    EXPECT_THAT(refusal([&] { compact(path()); }), HasSubstr("another memlane is writing"));
  }
  bool tried = false;
  compact(path(), {}, [&](std::uint64_t) {
    if (std::exchange(tried, true)) return;
    EXPECT_THAT(refusal([&] { MemoryFileWriter::append_to(path()); }), HasSubstr("another memlane is writing"));
  });
  EXPECT_TRUE(tried);
  EXPECT_EQ(contents(path()), kCompacted);
}

TEST_F(CompactionTest, CanBeStoppedBetweenRecordsAndLeavesNothing) {
  const Bytes before = read(path());
  int stop_at = 0;
  for (bool stopped = true; stopped; ++stop_at) {
    int calls = 0;
    stopped = false;
    try {
      compact(path(), {}, [&](std::uint64_t) {
        if (calls++ == stop_at) throw Interrupted("stop");
      });
    } catch (const Interrupted&) {
      stopped = true;
      EXPECT_EQ(read(path()), before);
      EXPECT_EQ(files(), 1U);
    }
  }
  EXPECT_GT(stop_at, 5);
  EXPECT_EQ(contents(path()), kCompacted);
}

TEST_F(CompactionTest, LeavesTheOldOrTheNewFileWhereverItCrashes) {
  const Bytes old = read(path());
  std::size_t crashes = 0;
  for (int at = 0;; ++at) {
    write(path(), old);
    const ::pid_t child = ::fork();
    if (child == 0) {
      int calls = 0;
      compact(path(), counted_calls(calls, at, [] { ::_exit(9); }));
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    const std::string found = contents(path());
    EXPECT_TRUE(found == kSmallFile || found == kCompacted) << found;
    if (WEXITSTATUS(status) == 0) break;
    ++crashes;
    compact(path());
    EXPECT_EQ(contents(path()), kCompacted);
    EXPECT_FALSE(std::filesystem::exists(left_over())) << "taken over";
  }
  EXPECT_GT(crashes, 15U);
}

TEST_F(CompactionTest, LeavesTheOldOrTheNewFileWhicheverCallFails) {
  const Bytes old = read(path());
  for (const bool halfway : {false, true}) {
    for (int call = 0;; ++call) {
      write(path(), old);
      const auto fault =
          std::make_shared<Fault>(Fault{.error = ENOSPC, .first = call, .last = Fault::kForEver, .halfway = halfway});
      std::string message;
      try {
        compact(path(), faulty_calls(fault));
      } catch (const InputError& error) {
        message = error.what();
      }
      const std::string found = contents(path());
      EXPECT_TRUE(found == kSmallFile || found == kCompacted) << found;
      EXPECT_EQ(files(), 1U) << "call " << call << ": " << message;
      if (!fault->happened) break;
      EXPECT_THAT(message, AllOf(StartsWith(path().string()), HasSubstr("No space")));
    }
  }
}

TEST_F(CompactionTest, RefusesADamagedFileAndLeavesItAlone) {
  Bytes damaged = read(path());
  damaged[damaged.size() - 500] ^= std::byte{4};
  write(path(), damaged);
  EXPECT_THAT(refusal([&] { compact(path()); }), HasSubstr("damaged"));
  EXPECT_EQ(read(path()), damaged);
  EXPECT_THAT(refusal([&] { compact(folder_.path() / "none"); }), HasSubstr("No such file"));
  EXPECT_EQ(files(), 1U);
}

class CopyDocumentTest : public CompactionTest {
 protected:
  CopyDocumentTest() : source_(MemoryFile::open(path())), into_(folder_.path() / "into.mem") {
    MemoryFileWriter writer = MemoryFileWriter::create(into_, header());
    writer.begin_document(document("first", 3));
  }
  MemoryFile source_;
  std::filesystem::path into_;
};

TEST_F(CopyDocumentTest, StoresWhatWritingItAnewWouldStore) {
  MemoryFileWriter writer = MemoryFileWriter::append_to(into_);
  const std::uint64_t before = writer.commit().length;
  std::uint64_t told = 0;
  EXPECT_EQ(writer.copy_document(source_.documents()[0], [&](std::uint64_t bytes) { told = bytes; }), 1U);
  EXPECT_EQ(writer.commit().length - before, MemoryFileWriter::copied_bytes(source_.documents()[0], header().shape));
  EXPECT_EQ(told, writer.commit().length - before);
  EXPECT_EQ(writer.copy_document(source_.documents()[1]), 2U);
  append(writer, 2, 54, 4);  // goes on where the copy ends
  EXPECT_EQ(contents(into_), "first:\nnovel: 0 1 2 3 | 4 5, index of 6 'flat 0'.\nplay: 50 51 52 53 | 54 55 56 57\n");

  const auto anew = folder_.path() / "anew.mem";
  {
    MemoryFileWriter other = MemoryFileWriter::create(anew, header());
    other.begin_document(document("first", 3));
    const std::vector<Step> all = steps();
    other.begin_document(document("novel", 6));
    append(other, 1, 0, 4);
    append(other, 1, 4, 2);
    other.store_indexes(1, 6, blobs("flat"));
    other.end_document(1);
    other.begin_document(document("play", 9));
    append(other, 2, 50, 4);
    append(other, 2, 54, 4);
  }
  EXPECT_EQ(MemoryFile::open(into_).commit().digest, MemoryFile::open(anew).commit().digest);
}

TEST_F(CopyDocumentTest, IsWholeOrNotThereWhicheverCallFails) {
  const Bytes before = read(into_);
  for (int call = 0;; ++call) {
    write(into_, before);
    const auto fault = std::make_shared<Fault>(Fault{.error = EIO, .first = call, .last = call + 1, .halfway = true});
    try {
      MemoryFileWriter writer = MemoryFileWriter::append_to(into_, faulty_calls(fault));
      writer.copy_document(source_.documents()[0]);
    } catch (const InputError&) {
    }
    const std::string found = contents(into_);
    EXPECT_TRUE(found == "first:\n" || found == "first:\nnovel: 0 1 2 3 | 4 5, index of 6 'flat 0'.\n") << found;
    if (!fault->happened) break;
  }
}

TEST_F(CopyDocumentTest, CarriesTheChecksumsOfTheSource) {
  // What is damaged after the source was opened must not get a good checksum.
  const StoredWindow& window = source_.documents()[0].windows[0];
  StoredDocument damaged = source_.documents()[0];
  std::vector<std::byte> entries(window.entries, window.entries + header().shape.segment_bytes(window.count));
  entries[5] ^= std::byte{1};
  damaged.windows[0].entries = entries.data();
  MemoryFileWriter::append_to(into_).copy_document(damaged);
  EXPECT_THAT(refusal_of(into_), HasSubstr("its checksum does not match"));
}

}  // namespace
}  // namespace memlane
