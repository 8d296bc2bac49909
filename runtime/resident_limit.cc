#include "runtime/resident_limit.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <system_error>

#include "kernels/error.h"
#include "memory/lost_pages.h"

namespace memlane {

namespace {

using std::chrono::nanoseconds;

/// Faster than pages can be touched: how soon so many bytes may have come.
constexpr std::uint64_t kBytesPerMicrosecond = 128 << 10;
constexpr nanoseconds kShortestPause = std::chrono::microseconds(100);
constexpr nanoseconds kLongestPause = std::chrono::milliseconds(10);
/// What must have come since pages were last given back for it to be done again: if allocated memory alone is above the
/// limit, doing it all the time would help nobody.
constexpr std::uint64_t kWorthGivingBack = std::uint64_t{1} << 20;

/// Asks the scheduler, where it can be asked (Linux 6.12), for short turns, which come soon after waking: all
/// processors may be busy with threads that touch pages. A wish; nothing depends on its being granted.
void ask_for_short_turns() {
  struct Attributes {  // of sched_setattr(2), which the C library does not declare
    std::uint32_t size = sizeof(Attributes), policy = 0;
    std::uint64_t flags = 0;
    std::int32_t nice = 0;
    std::uint32_t priority = 0;
    std::uint64_t runtime = 1'000'000, deadline = 0, period = 0;  // nanoseconds
  };
  static_assert(sizeof(Attributes) == 48);
  Attributes attributes;
  attributes.nice = ::getpriority(PRIO_PROCESS, 0);
  ::syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace

std::uint64_t ResidentLimit::margin(std::uint64_t budget) {
  return std::clamp(budget / 8, std::uint64_t{16} << 20, std::uint64_t{256} << 20);
}

ResidentLimit::ResidentLimit(std::uint64_t bytes) : limit_(bytes) {
  if (resident_.bytes() == 0) {
    input_error("/proc/self/statm: expected what this process has resident, cannot read it; leave the limit out");
  }
  try {
    thread_ = std::jthread([this](const std::stop_token& stop) { keep(stop); });
  } catch (const std::system_error& error) {
    input_error("a limit of memory: the system does not start a thread to keep it ({}); leave it out", error.what());
  }
}

void ResidentLimit::look() const {
  if (resident_.bytes() > limit_) let_go_of_watched_pages();
}

void ResidentLimit::keep(const std::stop_token& stop) const {
  ask_for_short_turns();
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::unique_lock<std::mutex> lock(mutex);
  std::uint64_t left = 0;  // resident after pages were last given back
  while (!stop.stop_requested()) {
    std::uint64_t now = resident_.bytes();
    left = std::min(left, now);
    if (now > limit_ && now > left + kWorthGivingBack) {
      let_go_of_watched_pages();
      now = left = resident_.bytes();
    }
    const std::uint64_t room = limit_ > now ? limit_ - now : 0;
    const nanoseconds soon = std::chrono::microseconds(room / kBytesPerMicrosecond);
    stopped.wait_for(lock, stop, std::clamp(soon, kShortestPause, kLongestPause), [] { return false; });
  }
}

}  // namespace memlane
