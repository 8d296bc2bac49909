#include "apps/bench_run/child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "kernels/error.h"

namespace memlane {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPause{5};
constexpr std::chrono::seconds kGrace{5};
constexpr int kNotStarted = 127;

/// A file descriptor that is closed at the end of its life.
class Descriptor {
 public:
  explicit Descriptor(const std::filesystem::path& path, int flags)
      : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (fd_ < 0)
      input_error("{}: cannot open it: {}; choose a folder you may write to", path.string(), std::strerror(errno));
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

/// In the child, between fork and exec: only calls that are safe there.
[[noreturn]] void become(char* const* words, const char* folder, ::pid_t parent, const int (&streams)[3]) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(kNotStarted);  // it died before the line above
  for (int i = 0; i < 3; ++i) ::dup2(streams[i], i);
  if (folder != nullptr && ::chdir(folder) != 0) ::_exit(kNotStarted);
  ::execvp(words[0], words);
  ::_exit(kNotStarted);
}

::pid_t start(const ChildJob& job) {
  const Descriptor in("/dev/null", O_RDONLY);
  const Descriptor out(job.out, O_WRONLY | O_CREAT | O_TRUNC);
  const Descriptor err(job.err, O_WRONLY | O_CREAT | O_TRUNC);
  std::vector<std::string> words = {job.program};
  words.insert(words.end(), job.arguments.begin(), job.arguments.end());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  const std::string folder = job.folder.string();
  const ::pid_t parent = ::getpid();
  const int streams[3] = {in.get(), out.get(), err.get()};
  const ::pid_t child = ::fork();
  if (child < 0) input_error("cannot start another process: {}; end some others first", std::strerror(errno));
  if (child == 0) become(pointers.data(), folder.empty() ? nullptr : folder.c_str(), parent, streams);
  return child;
}

double seconds_of(const ::timeval& time) {
  return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
}

}  // namespace

ChildResult run_child(const ChildJob& job, const std::atomic<bool>& stop, const std::function<void()>& tick) {
  const auto begin = Clock::now();
  auto last_tick = begin;
  Clock::time_point stopped_at;
  const ::pid_t child = start(job);
  ChildResult result;
  int status = 0;
  struct ::rusage usage {};
  for (;;) {
    const ::pid_t ended = ::wait4(child, &status, WNOHANG, &usage);
    if (ended == child) break;
    if (ended < 0 && errno != EINTR) throw std::logic_error("lost a child process");
    const auto now = Clock::now();
    if (stop && !result.stopped) {
      result.stopped = true;
      stopped_at = now;
      ::kill(child, SIGTERM);
    } else if (result.stopped && now - stopped_at > kGrace) {
      ::kill(child, SIGKILL);
    }
    if (now - last_tick > std::chrono::milliseconds(200)) {
      last_tick = now;
      tick();
    }
    std::this_thread::sleep_for(kPause);
  }
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  result.cpu_seconds = seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
  result.peak_bytes = static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;  // the kernel counts KiB
  result.stopped = result.stopped || stop;
  return result;
}

}  // namespace memlane
