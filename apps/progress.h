#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace memlane {

/// A progress line on standard error: a bar that redraws itself on a terminal, a line every few seconds elsewhere.
class Progress {
 public:
  /// done: tokens that were done before this run. shown: false for a quiet one.
  Progress(std::string label, std::size_t done, std::size_t total, bool shown);
  ~Progress();

  void update(std::size_t done);
  double seconds() const;

 private:
  std::string line(std::size_t done) const;

  std::string label_;
  std::size_t first_;
  std::size_t total_;
  bool shown_;
  bool on_terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_;
};

/// "1:02:03", "4:05", "7 s".
std::string duration_text(double seconds);
/// 1234567 as "1,234,567".
std::string count_text(std::size_t count);

}  // namespace memlane
