// A GPU whose memory is the host's, so that everything above its kernels runs in tests of machines without one. What
// has not been written is NaN, and every request for scratch space finds it overwritten.

#include "kernels/cuda/exec.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "kernels/array.h"
#include "kernels/error.h"
#include "tests/emulated_cuda/device.h"

namespace memlane {

namespace {

/// What is allocated on the device, and how much of it.
std::map<void*, std::size_t>& allocations() {
  static std::map<void*, std::size_t> all;
  return all;
}

}  // namespace

testing::EmulatedDevice& testing::emulated_device() {
  static EmulatedDevice device;
  return device;
}

namespace detail {

void* allocate_on_device(std::size_t bytes) {
  testing::EmulatedDevice& device = testing::emulated_device();
  if (device.used + bytes > device.bytes) throw DeviceError(fmt::format("cudaMalloc of {} bytes", bytes));
  void* pointer = allocate_aligned(bytes);
  std::memset(pointer, 0xff, bytes);
  allocations()[pointer] = bytes;
  device.used += bytes;
  device.peak = std::max(device.peak, device.used);
  return pointer;
}

void free_on_device(void* pointer) noexcept {
  const auto found = allocations().find(pointer);
  if (found == allocations().end()) return;
  testing::emulated_device().used -= found->second;
  allocations().erase(found);
  free_aligned(pointer);
}

void* allocate_pinned(std::size_t bytes) {
  void* pointer = allocate_aligned(bytes);
  std::memset(pointer, 0xff, bytes);
  return pointer;
}

void free_pinned(void* pointer) noexcept {
  free_aligned(pointer);
}

void zero_on_device(void* pointer, std::size_t bytes) {
  std::memset(pointer, 0, bytes);
}

void copy_to_device(CudaExec&, void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void copy_to_host(CudaExec&, void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void copy_on_device(CudaExec&, void* to, const void* from, std::size_t bytes) {
  const auto* source = static_cast<const std::byte*>(from);
  const auto* target = static_cast<const std::byte*>(to);
  MEMLANE_EXPECTS(source + bytes <= target || target + bytes <= source);  // a GPU copies in no order
  if (bytes > 0) std::memcpy(to, from, bytes);
}

}  // namespace detail

int cuda_device_count() {
  return 1;
}

struct CudaExec::Internals {
  std::string name = "an emulated GPU";
  CudaBuffer<std::byte> scratch;
};

CudaExec::CudaExec(int) : internals_(std::make_unique<Internals>()) {}
CudaExec::~CudaExec() = default;
CudaExec::CudaExec(CudaExec&&) noexcept = default;

int CudaExec::device() const {
  return 0;
}

const std::string& CudaExec::name() const {
  return internals_->name;
}

std::size_t CudaExec::free_bytes() const {
  return testing::emulated_device().bytes - testing::emulated_device().used;
}

std::size_t CudaExec::total_bytes() const {
  return testing::emulated_device().bytes;
}

std::size_t CudaExec::multiprocessors() const {
  return 2;
}

std::size_t CudaExec::shared_bytes() const {
  return std::size_t{160} << 10;
}

void CudaExec::synchronize() {}

std::byte* CudaExec::scratch(std::size_t bytes) {
  internals_->scratch.reserve_discarding(bytes);
  std::memset(internals_->scratch.data(), 0xff, internals_->scratch.size());
  return internals_->scratch.data();
}

}  // namespace memlane
