#include "tests/fuzz/targets.h"

#include <unistd.h>

#include <fstream>
#include <string>

#include "tests/temporary_folder.h"

namespace memlane::fuzz {

std::span<const Target> targets() {
  static constexpr Target kTargets[] = {{"memory_file", memory_file},
                                        {"checkpoint", checkpoint},
                                        {"checkpoint_index", checkpoint_index},
                                        {"config", config},
                                        {"tokenizer", tokenizer},
                                        {"text", text},
                                        {"words", words},
                                        {"run_file", run_file},
                                        {"list_index", list_index}};
  return kTargets;
}

std::string_view text_of(Input input) {
  return {reinterpret_cast<const char*>(input.data()), input.size()};
}

const std::filesystem::path& folder() {
  static const TemporaryFolder folder;
  return folder.path();
}

std::filesystem::path put(std::string_view name, Input bytes) {
  std::filesystem::path path = folder() / name;
  std::filesystem::remove(path);  // quicker than to truncate it
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  MEMLANE_EXPECTS(file.flush());
  return path;
}

void check_message(std::string_view message) {
  MEMLANE_EXPECTS(message.size() > 20);
}

std::uint64_t read_all(std::span<const std::byte> bytes) {
  volatile std::uint64_t sum = 0;
  for (const std::byte byte : bytes) sum = sum + static_cast<std::uint64_t>(byte);
  return sum;
}

}  // namespace memlane::fuzz
