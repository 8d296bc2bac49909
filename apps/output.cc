#include "apps/output.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "kernels/error.h"

namespace memlane {

void print_text(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!written || std::fflush(stdout) != 0) {
    input_error("standard output: cannot write: {}; send it to another place and run the command again",
                std::strerror(errno));
  }
}

std::string one_line(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return text;
}

void print_problem(std::string message) {
  fmt::print(stderr, "memlane: {}\n", one_line(std::move(message)));
}

void print_json(const nlohmann::json& object) {
  print_text(object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

void print_json_line(const nlohmann::json& object) {
  print_text(object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace memlane
