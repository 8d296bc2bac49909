#include "apps/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace memlane {

namespace {
constexpr double kSecondsBetweenLines = 5;
constexpr std::size_t kBarWidth = 24;
using Clock = std::chrono::steady_clock;
}  // namespace

std::string duration_text(double seconds) {
  const auto whole = static_cast<long>(std::max(0.0, std::round(seconds)));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string count_text(std::size_t count) {
  std::string digits = std::to_string(count);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

Progress::Progress(std::string label, std::size_t done, std::size_t total, bool shown, std::string unit)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      first_(done),
      total_(total),
      shown_(shown),
      on_terminal_(::isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      last_(start_) {}

Progress::~Progress() {
  if (drawn_ && on_terminal_) std::fputc('\n', stderr);
}

double Progress::seconds() const {
  return std::chrono::duration<double>(Clock::now() - start_).count();
}

void Progress::learn(std::size_t done) {
  const double x = static_cast<double>(done - first_) / static_cast<double>(std::max<std::size_t>(total_ - first_, 1));
  const double t = seconds();
  x2_ += x * x;
  x3_ += x * x * x;
  x4_ += x * x * x * x;
  xt_ += x * t;
  x2t_ += x * x * t;
}

double Progress::seconds_left(std::size_t done) const {
  const double x = static_cast<double>(done - first_) / static_cast<double>(std::max<std::size_t>(total_ - first_, 1));
  if (x <= 0 || x2_ <= 0) return 0;
  double a = xt_ / x2_;
  double b = 0;
  const double determinant = x2_ * x4_ - x3_ * x3_;
  if (determinant > 1e-9 * x2_ * x4_) {  // at least two different places
    const double linear = (xt_ * x4_ - x2t_ * x3_) / determinant;
    const double square = (x2t_ * x2_ - xt_ * x3_) / determinant;
    if (linear >= 0 && square > 0) a = linear, b = square;
  }
  return a * (1 - x) + b * (1 - x * x);
}

std::string Progress::line(std::size_t done) const {
  const double rate = static_cast<double>(done - first_) / std::max(seconds(), 1e-9);
  const std::size_t filled = kBarWidth * done / std::max<std::size_t>(total_, 1);
  const double left = seconds_left(done);
  return fmt::format("{} [{}{}] {:3}%  {} of {} {}  {} {}/s  {} left", label_, std::string(filled, '#'),
                     std::string(kBarWidth - filled, '.'), 100 * done / std::max<std::size_t>(total_, 1),
                     count_text(done), count_text(total_), unit_, count_text(static_cast<std::size_t>(rate)), unit_,
                     duration_text(left));
}

void Progress::update(std::size_t done) {
  if (!shown_) return;
  learn(done);
  const bool complete = done >= total_;
  const auto now = Clock::now();
  const double since_last = std::chrono::duration<double>(now - last_).count();
  if (on_terminal_) {
    if (drawn_ && !complete && since_last < 0.1) return;
    fmt::print(stderr, "\r{}\x1b[K", line(done));
    std::fflush(stderr);
  } else {
    if (!complete && since_last < kSecondsBetweenLines) return;
    fmt::print(stderr, "{}\n", line(done));
  }
  drawn_ = true;
  last_ = now;
}

}  // namespace memlane
