#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>

namespace memlane {

/// Called again and again during long work, with the entries that are done since the last time, or 0. What it throws
/// ends the work; unless it says otherwise, its object is then only good to be destroyed.
using Watch = std::function<void(std::size_t entries)>;

inline void unwatched(std::size_t) {}

/// A watch that several threads call, for one that takes turns: what one thread finds it busy with is told it by the
/// next. What it throws ends all of them within moments.
class SharedWatch {
 public:
  explicit SharedWatch(const Watch& watch) : watch_(watch) {}
  SharedWatch(const SharedWatch&) = delete;
  SharedWatch& operator=(const SharedWatch&) = delete;

  void operator()(std::size_t entries);
  /// Runs work() on its threads, which call this watch, and throws what the watch threw rather than what that led to.
  void over(const std::function<void()>& work);

 private:
  const Watch& watch_;
  std::mutex watching_;
  std::atomic<std::size_t> done_ = 0;
  std::atomic<bool> stopping_ = false;
  std::exception_ptr thrown_;  // by the watch
};

}  // namespace memlane
