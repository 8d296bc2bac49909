#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/sanitized.h"

namespace memlane {

/// How to run a program.
struct Invocation {
  std::vector<std::string> arguments;
  std::filesystem::path program = MEMLANE_PROGRAM;
  std::filesystem::path folder = {};                    ///< to run in; empty: where the test runs
  std::optional<std::string> input = {};                ///< all of standard input; without it /dev/null
  bool open_input = false;                              ///< standard input is a pipe that stays empty and open
  std::string output_to = {};                           ///< a file for standard output instead of the result
  std::map<std::string, std::string> environment = {};  ///< set beside the test's own
  std::map<int, ::rlim_t> limits = {};                  ///< resource (RLIMIT_FSIZE, …) to soft limit
};

struct Outcome {
  int exit_code = -1;  ///< -1 if a signal ended it
  int signal = 0;      ///< that ended it
  std::string out, err;
  std::vector<std::string> pieces;  ///< of `out`, as they came: no write is split over two
};

/// A program that runs. Killed at the end of its life.
class Program {
 public:
  explicit Program(const Invocation& invocation);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void send(int signal);
  /// Waits until it has written something to standard output.
  void wait_for_output();
  /// Whether it has ended (without waiting).
  bool ended();
  /// Waits until it ends; kills it and fails the test if that takes too long.
  Outcome finish();

 private:
  ::pid_t pid_ = -1;
  int out_ = -1;
  int err_ = -1;
  int input_ = -1;  ///< the end of a pipe that is kept open
  std::optional<int> status_;
};

/// Runs the program to its end.
Outcome run(const Invocation& invocation);
inline Outcome run(const std::vector<std::string>& arguments) {
  return run(Invocation{.arguments = arguments});
}

/// Waits until a condition holds; false if it takes too long.
bool wait_until(const std::function<bool()>& condition);

}  // namespace memlane
