#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

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

/// Throws InputError with a formatted message.
template <class... Args>
[[noreturn]] void input_error(fmt::format_string<Args...> format, Args&&... args) {
  throw InputError(fmt::format(format, std::forward<Args>(args)...));
}

namespace detail {
[[noreturn]] inline void broken_contract(const char* condition, const char* file, int line) {
  throw std::logic_error(fmt::format("{}:{}: broken contract: {}", file, line, condition));
}
}  // namespace detail

}  // namespace memlane

/// A contract between pieces of this program: if it fails, the program is wrong, not its input. User input never
/// reaches it unchecked.
#define MEMLANE_EXPECTS(condition) \
  ((condition) ? static_cast<void>(0) : ::memlane::detail::broken_contract(#condition, __FILE__, __LINE__))
