#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "tests/memory/faulty_calls.h"
#include "tests/memory/memory_file_fixture.h"

namespace memlane {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

/// Writes while system calls fail, and tells what became of it.
class MemoryFileFailureTest : public MemoryFileTest {
 protected:
  MemoryFileFailureTest() : states_(states_after_steps(folder_.path() / "states")) {}

  static std::optional<MemoryFileWriter> try_to_create(const std::filesystem::path& path, FileCalls calls,
                                                       std::string& message) {
    try {
      return MemoryFileWriter::create(path, header(), std::move(calls));
    } catch (const InputError& error) {
      message = error.what();
      return std::nullopt;
    }
  }

  /// How many steps the file holds, once `done` have returned and the next one may have failed.
  std::size_t steps_in(const std::filesystem::path& path, std::size_t done) {
    const std::string found = contents(path);
    const bool next_is_there = done < steps().size() && found == states_[done + 1];
    EXPECT_EQ(found, states_[next_is_there ? done + 1 : done]);
    return next_is_there ? done + 1 : done;
  }

  /// Runs the steps from `done` on until one fails. Returns how many are done.
  static std::size_t run(MemoryFileWriter& writer, std::size_t done, std::string& message) {
    const std::vector<Step> all = steps();
    try {
      for (; done < all.size(); ++done) all[done](writer);
    } catch (const InputError& error) {
      message = error.what();
    }
    return done;
  }

  /// Checks a whole life of a file in which the given calls fail. Returns whether any did.
  bool survives(Fault fault) {
    const auto file = folder_.path() / "faulty.mem";
    std::filesystem::remove(file);
    const auto shared = std::make_shared<Fault>(fault);
    std::string message;
    std::optional<MemoryFileWriter> writer = try_to_create(file, faulty_calls(shared), message);
    if (!writer) {
      EXPECT_THAT(message, HasSubstr("faulty.mem"));
      EXPECT_FALSE(std::filesystem::exists(file));
      EXPECT_FALSE(std::filesystem::exists(file.string() + ".new"));
      return true;
    }
    std::size_t done = run(*writer, 0, message);
    if (!message.empty()) {
      EXPECT_THAT(message, StartsWith(file.string()));
      steps_in(file, done);
      done = run(*writer, done, message);  // the same writer, tried again
    }
    writer.reset();
    MemoryFileWriter again = MemoryFileWriter::append_to(file);
    message.clear();
    EXPECT_EQ(run(again, steps_in(file, done), message), steps().size());
    EXPECT_EQ(message, "");
    EXPECT_EQ(contents(file), kSmallFile);
    return shared->happened;
  }

  std::vector<std::string> states_;
};

TEST_F(MemoryFileFailureTest, LosesNothingWhicheverCallFailsOnce) {
  int call = 0;
  while (survives({.error = ENOSPC, .first = call, .last = call})) ++call;
  EXPECT_GT(call, 30);
}

TEST_F(MemoryFileFailureTest, LosesNothingWhicheverCallFailsTwice) {
  int call = 0;
  while (survives({.error = EIO, .first = call, .last = call + 1})) ++call;
  EXPECT_GT(call, 30);
}

TEST_F(MemoryFileFailureTest, LosesNothingWhenEveryCallFailsFromAnyOneOn) {
  int call = 0;
  while (survives({.error = EIO, .first = call, .last = Fault::kForEver})) ++call;
  EXPECT_GT(call, 30);
}

TEST_F(MemoryFileFailureTest, LosesNothingWhenWritesStopHalfway) {
  int call = 0;
  while (survives({.error = ENOSPC, .first = call, .last = call, .halfway = true})) ++call;
  EXPECT_GT(call, 30);
}

TEST_F(MemoryFileFailureTest, FinishesShortAndInterruptedWrites) {
  FileCalls calls;
  int count = 0;
  calls.pwrite = [&](int fd, const void* data, std::size_t size, ::off_t offset) -> ::ssize_t {
    if (++count % 3 == 0) {
      errno = EINTR;
      return -1;
    }
    return ::pwrite(fd, data, size > Fault::kSector ? size / 3 : size, offset);
  };
  MemoryFileWriter writer = MemoryFileWriter::create(path(), header(), calls);
  for (const Step& step : steps()) step(writer);
  EXPECT_EQ(contents(path()), kSmallFile);
}

TEST_F(MemoryFileFailureTest, TreatsAWriteOfNothingAsAnError) {
  FileCalls calls;
  calls.pwrite = [](int, const void*, std::size_t, ::off_t) -> ::ssize_t { return 0; };
  EXPECT_THAT(refusal([&] { MemoryFileWriter::create(path(), header(), calls); }), HasSubstr("Input/output error"));
}

TEST_F(MemoryFileFailureTest, SaysHowManyBytesDidNotFitAndWhatToDo) {
  write_small_file(path());
  const auto fault = std::make_shared<Fault>(Fault{.error = ENOSPC, .first = 4, .last = 4, .halfway = true});
  MemoryFileWriter writer = MemoryFileWriter::append_to(path(), faulty_calls(fault));
  EXPECT_THAT(refusal([&] { writer.store_indexes(0, 6, std::vector<Bytes>(4, Bytes(5000))); }),
              AllOf(StartsWith(path().string()), HasSubstr("cannot write 20736 bytes: No space"),
                    HasSubstr("free disk space")));
}

TEST_F(MemoryFileFailureTest, RefusesToWriteOnWhenACommitCouldNotBeUndone) {
  write_small_file(path());
  const auto fault = std::make_shared<Fault>(Fault{.first = 3, .last = Fault::kForEver});
  MemoryFileWriter writer = MemoryFileWriter::append_to(path(), faulty_calls(fault));
  const auto append_next = [&] { append(writer, 1, 54, 4); };
  EXPECT_THAT(refusal(append_next), HasSubstr("Input/output error"));
  EXPECT_THAT(refusal(append_next), HasSubstr("run the command again"));
}

TEST_F(MemoryFileFailureTest, KeepsWhatIsStoredWhenFilesMayNotGrow) {
  write_small_file(path());
  const auto size = std::filesystem::file_size(path());
  const ::pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const ::rlimit limit = {size + 100, size + 100};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      MemoryFileWriter writer = MemoryFileWriter::append_to(path());
      append(writer, 1, 54, 4);
    } catch (const InputError& error) {
      ::_exit(std::string(error.what()).find("File too large; raise the limit") == std::string::npos ? 1 : 2);
    }
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 2);
  EXPECT_EQ(std::filesystem::file_size(path()), size);
  EXPECT_EQ(contents(path()), kSmallFile);
}

TEST_F(MemoryFileFailureTest, CannotBeCreatedInAMissingFolder) {
  EXPECT_THAT(refusal([&] { MemoryFileWriter::create(folder_.path() / "none" / "book.mem", header()); }),
              AllOf(HasSubstr("No such file"), HasSubstr("create its folder first")));
}

TEST_F(MemoryFileFailureTest, TakesOverWhatACrashLeftBeforeTheFileHadItsName) {
  write(path().string() + ".new", Bytes(100'000, std::byte{7}));
  write_small_file(path());
  EXPECT_EQ(contents(path()), kSmallFile);
  EXPECT_FALSE(std::filesystem::exists(path().string() + ".new"));
}

TEST_F(MemoryFileFailureTest, IsNotCreatedFromAHeaderThatCouldNotBeRead) {
  MemoryFileHeader bad = header();
  bad.shape.layers = {3, 3};
  EXPECT_THAT(refusal([&] { MemoryFileWriter::create(path(), bad); }), HasSubstr("memory layers 3,3"));
  bad = header();
  bad.top_k = 0;
  EXPECT_THAT(refusal([&] { MemoryFileWriter::create(path(), bad); }), HasSubstr("top_k 0"));
  EXPECT_FALSE(std::filesystem::exists(path()));
}

}  // namespace
}  // namespace memlane
