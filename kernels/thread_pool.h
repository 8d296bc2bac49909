#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace memlane {

/// The one pool of threads of a process. The calling thread works too, so `threads` = 1 starts none.
///
/// Items are handed out one at a time to whichever thread is free. A body must therefore give the same result whoever
/// runs it; all kernels do, which makes results independent of the number of threads.
class ThreadPool {
 public:
  /// threads: at least 1.
  explicit ThreadPool(std::size_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  std::size_t threads() const { return workers_.size() + 1; }

  /// Calls body(item, worker) for every item in [0, items), worker in [0, threads()), and returns when all are done.
  /// Rethrows the first exception of a body. Not reentrant: one call at a time, never from inside a body.
  void run(std::size_t items, const std::function<void(std::size_t item, std::size_t worker)>& body);

 private:
  void work(std::size_t worker);
  void drain(std::size_t worker);

  std::vector<std::thread> workers_;
  const std::function<void(std::size_t, std::size_t)>* body_ = nullptr;
  std::size_t items_ = 0;
  std::atomic<std::size_t> next_item_{0};
  std::atomic<std::size_t> busy_workers_{0};
  std::atomic<std::uint32_t> round_{0};  // a change starts the workers
  bool stopping_ = false;
  std::mutex error_mutex_;
  std::exception_ptr error_;
};

/// Threads that this process may run on at once, at least 1.
std::size_t available_threads();

}  // namespace memlane
