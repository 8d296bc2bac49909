#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace memlane {

/// A program to run to its end, with nothing on standard input.
struct ChildJob {
  std::string program;                 ///< a path, or a name to look for in PATH
  std::vector<std::string> arguments;  ///< without the program's name
  std::filesystem::path folder;        ///< to run in; empty: here
  std::filesystem::path out, err;      ///< files for its output
};

struct ChildResult {
  int exit_code = -1;            ///< -1 if a signal ended it; 127 if it could not be started
  int signal = 0;                ///< that ended it
  bool stopped = false;          ///< because `stop` was set
  double seconds = 0;            ///< wall-clock
  double cpu_seconds = 0;        ///< of all its threads
  std::uint64_t peak_bytes = 0;  ///< largest resident size
};

/// Runs the program; `tick` is called several times a second meanwhile. When `stop` is set the child gets SIGTERM, and
/// SIGKILL if it does not end soon. A child does not outlive this process. Throws InputError if its output files cannot
/// be made or the system starts no more processes.
ChildResult run_child(const ChildJob& job, const std::atomic<bool>& stop, const std::function<void()>& tick);

}  // namespace memlane
