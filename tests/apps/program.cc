#include "tests/apps/program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <thread>

namespace memlane {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kLongest{kSanitized ? 400 : 60};

struct Pipe {
  int read_end = -1;
  int write_end = -1;
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    read_end = ends[0];
    write_end = ends[1];
  }
};

/// A file that is gone when it is closed, holding `text`, at its start.
int file_of(const std::string& text) {
  std::FILE* file = std::tmpfile();
  if (file == nullptr || std::fwrite(text.data(), 1, text.size(), file) != text.size())
    throw std::runtime_error("no file");
  std::rewind(file);
  const int fd = ::dup(::fileno(file));
  std::fclose(file);
  return fd;
}

/// In the child, between fork and exec.
[[noreturn]] void become(const Invocation& invocation, int in, int out, int err) {
  ::dup2(in, STDIN_FILENO);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(err, STDERR_FILENO);
  for (const auto& [name, value] : invocation.environment) ::setenv(name.c_str(), value.c_str(), 1);
  for (const auto& [resource, limit] : invocation.limits) {
    struct ::rlimit both {};
    ::getrlimit(static_cast<__rlimit_resource>(resource), &both);
    both.rlim_cur = limit;
    ::setrlimit(static_cast<__rlimit_resource>(resource), &both);
  }
  if (!invocation.folder.empty() && ::chdir(invocation.folder.c_str()) != 0) ::_exit(126);
  std::vector<std::string> words = {invocation.program.string()};
  words.insert(words.end(), invocation.arguments.begin(), invocation.arguments.end());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  ::execv(pointers[0], pointers.data());
  ::_exit(127);
}

}  // namespace

Program::Program(const Invocation& invocation) {
  const Pipe out;
  const Pipe err;
  int in = -1;
  if (invocation.open_input) {
    const Pipe pipe;
    in = pipe.read_end;
    input_ = pipe.write_end;
  } else {
    in = invocation.input ? file_of(*invocation.input) : ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  }
  const int out_file = invocation.output_to.empty() ? -1 : ::open(invocation.output_to.c_str(), O_WRONLY | O_CLOEXEC);
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("cannot fork");
  if (pid_ == 0) become(invocation, in, out_file >= 0 ? out_file : out.write_end, err.write_end);
  for (const int fd : {in, out.write_end, err.write_end, out_file}) {
    if (fd >= 0) ::close(fd);
  }
  out_ = out.read_end;
  err_ = err.read_end;
}

Program::~Program() {
  if (!ended()) {
    send(SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  for (const int fd : {out_, err_, input_}) {
    if (fd >= 0) ::close(fd);
  }
}

void Program::send(int signal) {
  if (!status_) ::kill(pid_, signal);
}

void Program::wait_for_output() {
  ::pollfd waiting{.fd = out_, .events = POLLIN, .revents = 0};
  EXPECT_TRUE(wait_until([&] { return ::poll(&waiting, 1, 0) == 1 || ended(); })) << "no output";
}

bool Program::ended() {
  int status = 0;
  if (!status_ && ::waitpid(pid_, &status, WNOHANG) == pid_) status_ = status;
  return status_.has_value();
}

Outcome Program::finish() {
  Outcome outcome;
  const auto deadline = Clock::now() + kLongest;
  std::array<struct ::pollfd, 2> streams = {{{out_, POLLIN, 0}, {err_, POLLIN, 0}}};
  std::vector<char> buffer(1 << 16);
  while (streams[0].fd >= 0 || streams[1].fd >= 0) {
    if (Clock::now() > deadline) {
      send(SIGKILL);
      ADD_FAILURE() << "the program did not end in time; so far it said: " << outcome.err;
      break;
    }
    if (::poll(streams.data(), streams.size(), 100) <= 0) continue;
    for (std::size_t i = 0; i < streams.size(); ++i) {
      if (streams[i].fd < 0 || streams[i].revents == 0) continue;
      const ::ssize_t got = ::read(streams[i].fd, buffer.data(), buffer.size());
      if (got <= 0) {
        streams[i].fd = -1;
        continue;
      }
      const std::string piece(buffer.data(), static_cast<std::size_t>(got));
      (i == 0 ? outcome.out : outcome.err) += piece;
      if (i == 0) outcome.pieces.push_back(piece);
    }
  }
  if (!status_) {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    status_ = status;
  }
  if (WIFEXITED(*status_)) outcome.exit_code = WEXITSTATUS(*status_);
  if (WIFSIGNALED(*status_)) outcome.signal = WTERMSIG(*status_);
  return outcome;
}

Outcome run(const Invocation& invocation) {
  return Program(invocation).finish();
}

bool wait_until(const std::function<bool()>& condition) {
  const auto deadline = Clock::now() + kLongest;
  while (!condition()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace memlane
