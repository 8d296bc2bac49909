#include "runtime/device.h"

#include <charconv>
#include <string_view>

#include "kernels/error.h"

#ifdef MEMLANE_HAS_CUDA
#include "kernels/cuda/exec.h"
#endif

namespace memlane {

namespace {

#ifdef MEMLANE_HAS_CUDA
int device_count() {
  return cuda_device_count();
}
#else
int device_count() {
  return 0;
}
#endif

/// The number in "cuda" or "cuda:N"; -1 if it is neither.
int number_in(std::string_view name) {
  constexpr std::string_view kPrefix = "cuda:";
  if (name == "cuda") return 0;
  if (!name.starts_with(kPrefix)) return -1;
  const std::string_view digits = name.substr(kPrefix.size());
  int number = 0;
  const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return error == std::errc() && stop == digits.data() + digits.size() && number >= 0 ? number : -1;
}

}  // namespace

bool built_with_cuda() {
#ifdef MEMLANE_HAS_CUDA
  return true;
#else
  return false;
#endif
}

DeviceChoice device_named(const std::string& name) {
  if (name == "cpu") return {};
  if (name == "auto") return {device_count() > 0 ? 0 : -1};
  const int number = number_in(name);
  if (number < 0) input_error("--device {}: expected cpu, cuda, cuda:N or auto", name);
  if (!built_with_cuda()) {
    input_error("--device {}: this memlane was built without CUDA; build the preset cuda, or use --device cpu", name);
  }
  if (number >= device_count()) {
    input_error("--device {}: expected a GPU of this machine, found {} that CUDA can use; use --device cpu", name,
                device_count());
  }
  return {number};
}

}  // namespace memlane
