// One program for all targets, driven by libFuzzer: memlane_fuzz --target=NAME [libFuzzer's flags and folders].

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/fuzz/targets.h"

namespace {
const memlane::fuzz::Target* chosen = nullptr;
}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  constexpr std::string_view kFlag = "--target=";  // libFuzzer leaves alone what begins with two dashes
  for (int i = 1; i < *argc; ++i) {
    const std::string_view word = (*argv)[i];
    if (!word.starts_with(kFlag)) continue;
    for (const memlane::fuzz::Target& target : memlane::fuzz::targets()) {
      if (target.name == word.substr(kFlag.size())) chosen = &target;
    }
  }
  if (chosen != nullptr) return 0;
  std::fputs("memlane_fuzz: expected --target=NAME, with NAME one of", stderr);
  for (const memlane::fuzz::Target& target : memlane::fuzz::targets()) std::fprintf(stderr, " %s", target.name.data());
  std::fputs("\n", stderr);
  std::exit(2);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  chosen->run({data, size});
  return 0;
}
