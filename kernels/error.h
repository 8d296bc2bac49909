#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#ifndef __CUDACC__  // nvcc does not compile the format library
#include <fmt/format.h>
#endif

namespace memlane {

/// Something the user can put right: a file, a flag, a tensor. The message is one line that names it, says what was
/// expected and what was found, and what to do. Commands print it and exit with 2.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Work was stopped by request (Ctrl-C). Everything complete has been kept.
class Interrupted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A GPU or its driver refused or failed. The message says what was called, where, and what the driver said.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

#ifndef __CUDACC__
/// Throws InputError with a formatted message.
template <class... Args>
[[noreturn]] void input_error(fmt::format_string<Args...> format, Args&&... args) {
  throw InputError(fmt::format(format, std::forward<Args>(args)...));
}
#endif

namespace detail {
[[noreturn]] void broken_contract(const char* condition, const char* file, int line);
}  // namespace detail

}  // namespace memlane

/// A contract between pieces of this program: if it fails, the program is wrong, not its input. User input never
/// reaches it unchecked.
#define MEMLANE_EXPECTS(condition) \
  ((condition) ? static_cast<void>(0) : ::memlane::detail::broken_contract(#condition, __FILE__, __LINE__))
