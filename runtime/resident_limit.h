#pragma once

#include <cstdint>
#include <thread>

#include "runtime/resources.h"

namespace memlane {

/// Keeps the resident memory of this process below a limit while it lives, as far as pages of mapped files exceed it:
/// they are given back, and read again, from the system's cache or the file, when they are used. No result changes.
/// What a process has allocated it cannot give back: that has to be planned.
///
/// A thread looks at what is resident, but all processors may be busy touching pages: who touches many should look,
/// too.
class ResidentLimit {
 public:
  /// bytes: above this, pages are given back. Between two looks more may come, so it should be margin() below what must
  /// not be exceeded. Throws InputError if the system does not say what is resident.
  explicit ResidentLimit(std::uint64_t bytes);
  ResidentLimit(const ResidentLimit&) = delete;
  ResidentLimit& operator=(const ResidentLimit&) = delete;

  /// Looks, and gives pages back if the limit is exceeded. Thread-safe.
  void look() const;

  /// Bytes that a budget is to be ahead of the limit: an eighth, but 16 to 256 MiB.
  static std::uint64_t margin(std::uint64_t budget);

 private:
  void keep(const std::stop_token& stop) const;

  std::uint64_t limit_;
  ResidentMemory resident_;
  std::jthread thread_;
};

}  // namespace memlane
