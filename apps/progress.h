#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace memlane {

/// A progress line on standard error: a bar that redraws itself on a terminal, a line every few seconds elsewhere.
class Progress {
 public:
  /// done: tokens that were done before this run. shown: false for a quiet one. unit: what is counted.
  Progress(std::string label, std::size_t done, std::size_t total, bool shown, std::string unit = "tokens");
  ~Progress();

  void update(std::size_t done);
  double seconds() const;

 private:
  std::string line(std::size_t done) const;
  void learn(std::size_t done);
  double seconds_left(std::size_t done) const;

  std::string label_, unit_;
  std::size_t first_;
  std::size_t total_;
  bool shown_;
  bool on_terminal_;
  bool drawn_ = false;
  /// Time grows with the square of the tokens where each is held against those before it: t = a x + b x^2 is fitted to
  /// what was seen, x being the share of this run that is done. Sums of x^2, x^3, x^4, x t and x^2 t.
  double x2_ = 0, x3_ = 0, x4_ = 0, xt_ = 0, x2t_ = 0;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_;
};

/// "1:02:03", "4:05", "7 s".
std::string duration_text(double seconds);
/// 1234567 as "1,234,567".
std::string count_text(std::size_t count);

}  // namespace memlane
