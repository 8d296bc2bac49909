#include "apps/measured_child.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <new>
#include <stdexcept>

#include "apps/interrupt.h"
#include "kernels/error.h"

namespace memlane {

namespace {

constexpr int kFailed = 1;
constexpr int kBadInput = 2;

void write_all(int file, const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const ::ssize_t written = ::write(file, text.data() + at, text.size() - at);
    if (written < 0 && errno != EINTR) return;
    if (written > 0) at += static_cast<std::size_t>(written);
  }
}

/// Never returns. Nothing of the parent may be finished or flushed twice, so it ends by _exit.
[[noreturn]] void run_child(int out, const std::function<nlohmann::json()>& work) {
  int code = 0;
  std::string text;
  try {
    text = work().dump();
  } catch (const InputError& error) {
    code = kBadInput;
    text = error.what();
  } catch (const std::bad_alloc&) {
    code = kFailed;
    text = "out of memory; use shorter lengths";
  } catch (const std::exception& error) {
    code = kFailed;
    text = error.what();
  }
  write_all(out, text);
  ::_exit(code);
}

/// All that the child writes. A stop signal that came to this process alone goes on to the child, once.
std::string read_all(int file, ::pid_t child) {
  std::string text;
  bool told = false;
  while (true) {
    if (interrupt_flag() && !told) {
      ::kill(child, SIGINT);
      told = true;
    }
    ::pollfd ready{file, POLLIN, 0};
    if (::poll(&ready, 1, 200) <= 0) continue;
    char buffer[4096];
    const ::ssize_t got = ::read(file, buffer, sizeof buffer);
    if (got > 0) text.append(buffer, static_cast<std::size_t>(got));
    if (got == 0 || (got < 0 && errno != EINTR)) return text;
  }
}

}  // namespace

std::optional<MeasuredChild> run_in_child(const std::function<nlohmann::json()>& work) {
  interrupt_flag();  // so that the child has it, too
  int ends[2];
  if (::pipe(ends) != 0) throw std::runtime_error(fmt::format("no pipe: {}", std::strerror(errno)));
  const ::pid_t parent = ::getpid();
  const ::pid_t child = ::fork();
  if (child < 0) {
    const int error = errno;
    ::close(ends[0]);
    ::close(ends[1]);
    throw std::runtime_error(fmt::format("the system starts no process for it ({})", std::strerror(error)));
  }
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(kFailed);  // it died before the line above
    ::close(ends[0]);
    run_child(ends[1], work);
  }
  ::close(ends[1]);
  const std::string text = read_all(ends[0], child);
  ::close(ends[0]);
  int status = 0;
  ::rusage usage{};
  while (::wait4(child, &status, 0, &usage) < 0 && errno == EINTR) {
  }
  if (interrupt_flag()) return std::nullopt;
  if (WIFSIGNALED(status)) {
    throw std::runtime_error(
        fmt::format("signal {} ended its process; if memory ran out, use shorter lengths", WTERMSIG(status)));
  }
  if (WEXITSTATUS(status) == kBadInput) throw InputError(text);
  if (WEXITSTATUS(status) != 0) throw std::runtime_error(text);
  const nlohmann::json found = nlohmann::json::parse(text, nullptr, false);
  if (found.is_discarded()) throw std::runtime_error("its process ended without a result");
  return MeasuredChild{found, static_cast<std::uint64_t>(usage.ru_maxrss) * 1024};
}

}  // namespace memlane
