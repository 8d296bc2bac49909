#include "memory/watch.h"

#include "kernels/error.h"

namespace memlane {

void SharedWatch::operator()(std::size_t entries) {
  done_ += entries;
  const std::unique_lock lock(watching_, std::try_to_lock);
  if (stopping_) throw Interrupted("stopped");
  if (!lock) return;
  try {
    watch_(done_.exchange(0));
  } catch (...) {
    thrown_ = std::current_exception();
    stopping_ = true;
    throw;
  }
}

void SharedWatch::over(const std::function<void()>& work) {
  try {
    work();
    (*this)(0);
  } catch (...) {
    if (thrown_) std::rethrow_exception(thrown_);
    throw;
  }
}

}  // namespace memlane
