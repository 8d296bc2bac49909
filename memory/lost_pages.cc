#include "memory/lost_pages.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>

#include "memory/mapped_file.h"

namespace memlane {

namespace {

/// Atomics alone, and no storage that comes and goes: a signal handler may use nothing else.
struct Mapping {
  std::atomic<std::uintptr_t> begin = 0;  // 0: free; 1: being filled in
  std::atomic<std::size_t> size = 0;
  std::array<char, 1024> path{};
};
std::array<Mapping, 256> mappings;
std::mutex letting_go;  // held, not by the signal handler, while a mapping must not go

void say(const char* text) {
  if (::write(STDERR_FILENO, text, std::strlen(text)) < 0) return;  // there is nobody else to tell
}

void handle(int signal, ::siginfo_t* info, void* /*context*/) {
  const auto at = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (const Mapping& mapping : mappings) {
    const std::uintptr_t begin = mapping.begin;
    if (begin <= 1 || at < begin || at - begin >= mapping.size) continue;
    say("memlane: ");
    say(mapping.path.data());
    say(": cannot be read any more: the disk failed, or the file was cut while it was in use; check the disk and the "
        "file, then run the command again\n");
    ::_exit(2);
  }
  ::signal(signal, SIG_DFL);
  ::raise(signal);  // again, with the usual end
}

}  // namespace

void report_lost_pages() {
  struct ::sigaction action {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

void watch_pages(const std::byte* begin, std::size_t size, const std::filesystem::path& path) {
  for (Mapping& mapping : mappings) {
    std::uintptr_t free = 0;
    if (!mapping.begin.compare_exchange_strong(free, 1)) continue;
    mapping.path.fill('\0');
    const std::string name = path.string();
    std::copy_n(name.begin(), std::min(name.size(), mapping.path.size() - 1), mapping.path.begin());
    mapping.size = size;
    mapping.begin = reinterpret_cast<std::uintptr_t>(begin);
    return;
  }
}

void forget_pages(const std::byte* begin) {
  const std::lock_guard<std::mutex> lock(letting_go);
  for (Mapping& mapping : mappings) {
    std::uintptr_t expected = reinterpret_cast<std::uintptr_t>(begin);
    if (mapping.begin.compare_exchange_strong(expected, 0)) return;
  }
}

void let_go_of_watched_pages() {
  const std::lock_guard<std::mutex> lock(letting_go);
  for (const Mapping& mapping : mappings) {
    const std::uintptr_t begin = mapping.begin;
    if (begin > 1) let_go({reinterpret_cast<const std::byte*>(begin), mapping.size});
  }
}

}  // namespace memlane
