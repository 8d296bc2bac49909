#include "kernels/thread_pool.h"

#include <sched.h>

#include <utility>

#include "kernels/error.h"

namespace memlane {

namespace {

/// Rounds follow each other within microseconds while a model runs, so a short spin saves a sleep and a wake-up each
/// time.
constexpr int kSpins = 4000;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

/// Waits until `value` differs from `old`.
template <class T>
void wait_for_change(const std::atomic<T>& value, T old) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

/// Ends workers that wait for a round.
void stop(auto& stopping, auto& round, std::vector<std::thread>& workers) {
  stopping = true;
  round.fetch_add(1, std::memory_order_release);
  round.notify_all();
  for (std::thread& worker : workers) worker.join();
}

}  // namespace

ThreadPool::ThreadPool(std::size_t threads) {
  MEMLANE_EXPECTS(threads >= 1);
  workers_.reserve(threads - 1);
  try {
    for (std::size_t worker = 1; worker < threads; ++worker) workers_.emplace_back([this, worker] { work(worker); });
  } catch (...) {  // the system has no more threads
    stop(stopping_, round_, workers_);
    throw;
  }
}

ThreadPool::~ThreadPool() {
  stop(stopping_, round_, workers_);
}

void ThreadPool::run(std::size_t items, const std::function<void(std::size_t, std::size_t)>& body) {
  if (workers_.empty() || items <= 1) {
    for (std::size_t item = 0; item < items; ++item) body(item, 0);
    return;
  }
  body_ = &body;
  items_ = items;
  next_item_.store(0, std::memory_order_relaxed);
  busy_workers_.store(workers_.size(), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  drain(0);
  for (std::size_t busy = busy_workers_.load(std::memory_order_acquire); busy != 0;
       busy = busy_workers_.load(std::memory_order_acquire)) {
    wait_for_change(busy_workers_, busy);
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::work(std::size_t worker) {
  for (std::uint32_t seen = 0;;) {
    wait_for_change(round_, seen);
    seen = round_.load(std::memory_order_acquire);
    if (stopping_) return;
    drain(worker);
    if (busy_workers_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_workers_.notify_one();
  }
}

void ThreadPool::drain(std::size_t worker) {
  try {
    for (std::size_t item = next_item_.fetch_add(1, std::memory_order_relaxed); item < items_;
         item = next_item_.fetch_add(1, std::memory_order_relaxed)) {
      (*body_)(item, worker);
    }
  } catch (...) {
    next_item_.store(items_, std::memory_order_relaxed);  // the others need not start what is left
    const std::lock_guard lock(error_mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

std::size_t available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) {
    return static_cast<std::size_t>(CPU_COUNT(&set));
  }
  const unsigned count = std::thread::hardware_concurrency();
  return count == 0 ? 1 : count;
}

}  // namespace memlane
