#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <thread>

#include "tests/memory/faulty_calls.h"
#include "tests/memory/memory_file_fixture.h"

namespace memlane {
namespace {

using testing::HasSubstr;

/// A file under a name that is not there yet, as the operations of a log leave it.
class Disk {
 public:
  void apply(const DiskOperation& operation) {
    switch (operation.kind) {
      case DiskOperation::Kind::write:
        return write(operation.offset, operation.bytes);
      case DiskOperation::Kind::truncate:
        return bytes_.resize(operation.offset);
      case DiskOperation::Kind::rename:
        named_ = true;
        return;
      case DiskOperation::Kind::sync:
        return;
    }
  }
  void apply_half(const DiskOperation& operation) {
    write(operation.offset, std::span(operation.bytes).first(operation.bytes.size() / 2));
  }
  bool named() const { return named_; }
  const Bytes& bytes() const { return bytes_; }

 private:
  void write(std::uint64_t offset, std::span<const std::byte> bytes) {
    bytes_.resize(std::max<std::size_t>(bytes_.size(), offset + bytes.size()));
    std::ranges::copy(bytes, bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  Bytes bytes_;
  bool named_ = false;
};

class MemoryFileCrashTest : public MemoryFileTest {
 protected:
  MemoryFileCrashTest() : states_(states_after_steps(folder_.path() / "states")) {
    MemoryFileWriter writer = MemoryFileWriter::create(folder_.path() / "logged", header(), recording_calls(log_));
    returned_.push_back(log_.size());
    for (const Step& step : steps()) {
      step(writer);
      returned_.push_back(log_.size());
    }
    uninterrupted_ = read(folder_.path() / "logged");
  }

  /// Whether a crash can leave half of this operation: of a write larger than a sector.
  static bool can_be_torn(const DiskOperation& operation) {
    return operation.kind == DiskOperation::Kind::write && operation.bytes.size() > Fault::kSector;
  }

  /// Checks what a crash after `count` operations leaves: the state of the last step that had returned, or already the
  /// next one; and that the remaining steps lead to the very bytes of a file that never crashed.
  void expect_recovery(const Disk& disk, std::size_t count) {
    std::filesystem::remove(path());
    if (!disk.named()) {
      EXPECT_LT(count, returned_[0]);
      write(path().string() + ".new", disk.bytes());
      write_small_file(path());
      EXPECT_EQ(read(path()), uninterrupted_);
      return;
    }
    write(path(), disk.bytes());
    const auto after = std::ranges::upper_bound(returned_, count);
    std::size_t done = after == returned_.begin() ? 0 : static_cast<std::size_t>(after - returned_.begin()) - 1;
    const std::string found = contents(path());
    if (found != states_[done]) ++done;
    ASSERT_LT(done, states_.size());
    ASSERT_EQ(found, states_[done]);

    MemoryFileWriter writer = MemoryFileWriter::append_to(path());
    const std::vector<Step> all = steps();
    for (; done < all.size(); ++done) all[done](writer);
    EXPECT_EQ(read(path()), uninterrupted_);
  }

  std::vector<std::string> states_;
  std::vector<DiskOperation> log_;
  std::vector<std::size_t> returned_;  // operations done when creation, and each step, returned
  Bytes uninterrupted_;
};

TEST_F(MemoryFileCrashTest, RecoversFromACrashAfterAnyOperation) {
  Disk disk;
  for (std::size_t count = 0; count <= log_.size(); ++count) {
    SCOPED_TRACE(fmt::format("crash after {} operations", count));
    expect_recovery(disk, count);
    if (count == log_.size()) break;
    if (can_be_torn(log_[count])) {
      Disk torn = disk;
      torn.apply_half(log_[count]);
      expect_recovery(torn, count);
    }
    disk.apply(log_[count]);
  }
}

TEST_F(MemoryFileCrashTest, RecoversWhenThePowerFailsAndUnsyncedWritesAreLostInAnyOrder) {
  std::mt19937 random(7);
  Disk synced;
  std::size_t first_unsynced = 0;
  for (std::size_t count = 0; count < log_.size(); ++count) {
    if (log_[count].kind == DiskOperation::Kind::sync) {
      for (; first_unsynced <= count; ++first_unsynced) synced.apply(log_[first_unsynced]);
      continue;
    }
    if (!synced.named()) continue;
    for (int trial = 0; trial < 4; ++trial) {
      Disk disk = synced;
      for (std::size_t i = first_unsynced; i <= count; ++i) {
        if (random() % 2 == 0) disk.apply(log_[i]);
      }
      SCOPED_TRACE(fmt::format("power fails after {} operations", count));
      expect_recovery(disk, count);
    }
  }
}

TEST_F(MemoryFileCrashTest, IgnoresWhatFollowsTheLastCommitAndCutsItOff) {
  write_small_file(path());
  Bytes bytes = read(path());
  const std::size_t size = bytes.size();
  bytes.resize(size + 1000, std::byte{0x5a});
  write(path(), bytes);
  EXPECT_EQ(contents(path()), kSmallFile);
  EXPECT_TRUE(MemoryFile::open(path()).has_uncommitted_tail());
  MemoryFileWriter::append_to(path());
  EXPECT_FALSE(MemoryFile::open(path()).has_uncommitted_tail());
  EXPECT_EQ(std::filesystem::file_size(path()), size);
}

/// Reads one long document into a file, as far as it comes; goes on with what is there.
class MemoryFileKillTest : public MemoryFileTest {
 protected:
  static constexpr std::uint64_t kTokens = 600;

  static void ingest(const std::filesystem::path& path, const FileCalls& calls) {
    MemoryFileWriter writer = std::filesystem::exists(path) ? MemoryFileWriter::append_to(path, calls)
                                                            : MemoryFileWriter::create(path, header(), calls);
    const auto& stored = writer.stored().documents();
    if (stored.empty()) writer.begin_document(document("novel", kTokens));
    if (!stored.empty() && stored[0].complete) return;
    for (std::size_t done = stored.empty() ? 0 : stored[0].entries(); done < kTokens; done += 4) {
      append(writer, 0, static_cast<std::int32_t>(done), 4);
    }
    writer.end_document(0);
  }

  /// Calls that take a while, so that a kill finds each of them at work.
  static FileCalls slow_calls() {
    FileCalls calls;
    calls.pwrite = [](int fd, const void* data, std::size_t size, ::off_t offset) {
      ::usleep(30);
      return ::pwrite(fd, data, size, offset);
    };
    return calls;
  }

  /// Runs an action in a process of its own, which exits with 0 if the action returns.
  template <class Action>
  static ::pid_t start(const Action& action) {
    const ::pid_t child = ::fork();
    if (child != 0) return child;
    try {
      action();
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }

  static int wait_for(::pid_t child) {
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return status;
  }
};

TEST_F(MemoryFileKillTest, HoldsTheSameBytesHoweverOftenItsWriterIsKilled) {
  ingest(folder_.path() / "uninterrupted", {});
  std::mt19937 random(11);
  std::size_t entries = 0;
  for (int kill = 0; kill < 25; ++kill) {
    const ::pid_t child = start([&] { ingest(path(), slow_calls()); });
    ::usleep(static_cast<::useconds_t>(random() % 12'000));
    ::kill(child, SIGKILL);
    wait_for(child);
    if (!std::filesystem::exists(path())) continue;
    const MemoryFile memory = MemoryFile::open(path());
    EXPECT_THAT(contents(memory), testing::Not(HasSubstr("WRONG")));
    if (memory.documents().empty()) continue;
    EXPECT_GE(memory.documents()[0].entries(), entries);
    entries = memory.documents()[0].entries();
  }
  ingest(path(), {});
  EXPECT_EQ(read(path()), read(folder_.path() / "uninterrupted"));
}

TEST_F(MemoryFileKillTest, AdmitsOneWriterUntilItDies) {
  write_small_file(path());
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const ::pid_t child = start([&] {
    const MemoryFileWriter writer = MemoryFileWriter::append_to(path());
    if (::write(ready[1], "!", 1) == 1) ::pause();
  });
  char mark = 0;
  ASSERT_EQ(::read(ready[0], &mark, 1), 1);
  EXPECT_THAT(refusal([&] { MemoryFileWriter::append_to(path()); }), HasSubstr("another memlane is writing"));
  EXPECT_EQ(contents(path()), kSmallFile);  // readers are welcome
  ::kill(child, SIGKILL);
  wait_for(child);
  MemoryFileWriter writer = MemoryFileWriter::append_to(path());
  append(writer, 1, 54, 4);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(MemoryFileKillTest, CanBeReadByManyWhileItIsWritten) {
  MemoryFileWriter::create(path(), header()).begin_document(document("novel", kTokens));
  std::atomic<bool> done = false;
  std::thread writer([&] {
    ingest(path(), {});
    done = true;
  });
  std::vector<std::jthread> readers;
  for (int reader = 0; reader < 4; ++reader) {
    readers.emplace_back([&] {
      std::size_t entries = 0;
      for (bool last = false; !last;) {
        last = done;
        const MemoryFile memory = MemoryFile::open(path());
        EXPECT_THAT(contents(memory), testing::Not(HasSubstr("WRONG")));
        EXPECT_GE(memory.documents().at(0).entries(), entries);
        entries = memory.documents().at(0).entries();
      }
    });
  }
  writer.join();
  readers.clear();
  EXPECT_EQ(MemoryFile::open(path()).documents().at(0).entries(), kTokens);
}

}  // namespace
}  // namespace memlane
