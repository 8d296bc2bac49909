// A GPU whose memory is the host's, so that everything above its kernels runs in tests of machines without one. What
// has not been written is NaN, and every request for scratch space finds it overwritten.

#include "kernels/cuda/exec.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <vector>

#include "kernels/array.h"
#include "kernels/cuda/graph.h"
#include "kernels/error.h"
#include "tests/emulated_cuda/device.h"

namespace memlane {

namespace {

/// What is allocated on the device, and how much of it.
std::map<void*, std::size_t>& allocations() {
  static std::map<void*, std::size_t> all;
  return all;
}

std::map<void*, std::size_t>& pinned_allocations() {
  static std::map<void*, std::size_t> all;
  return all;
}

std::uint64_t allocations_so_far = 0;  // and what was freed

using Recording = std::vector<std::function<void()>>;
/// Where work goes instead of being done; null: it is done. What a GPU refuses meanwhile breaks the recording off.
Recording* recording = nullptr;
bool broken_off = false;

void refuse_while_recording(const char* what) {
  if (recording == nullptr) return;
  broken_off = true;
  throw DeviceError(fmt::format("{} while a graph is recorded", what));
}

void require_pinned(const void* pointer, std::size_t bytes) {
  const auto* begin = static_cast<const std::byte*>(pointer);
  for (const auto& [allocated, size] : pinned_allocations()) {
    const auto* first = static_cast<const std::byte*>(allocated);
    if (begin >= first && begin + bytes <= first + size) return;
  }
  MEMLANE_EXPECTS(!"pinned memory");
}

}  // namespace

void testing::queue(CudaExec&, std::function<void()> work) {
  if (recording == nullptr) return work();
  recording->push_back(std::move(work));
}

testing::EmulatedDevice& testing::emulated_device() {
  static EmulatedDevice device;
  return device;
}

namespace detail {

void* allocate_on_device(std::size_t bytes) {
  refuse_while_recording("an allocation");
  ++allocations_so_far;
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
  ++allocations_so_far;
  broken_off = broken_off || recording != nullptr;
  const std::size_t bytes = found->second;
  testing::emulated_device().used -= bytes;
  allocations().erase(found);
  free_aligned(pointer, bytes);
}

std::uint64_t device_allocations() noexcept {
  return allocations_so_far;
}

void* allocate_pinned(std::size_t bytes) {
  refuse_while_recording("an allocation");
  void* pointer = allocate_aligned(bytes);
  std::memset(pointer, 0xff, bytes);
  pinned_allocations()[pointer] = bytes;
  return pointer;
}

void free_pinned(void* pointer) noexcept {
  const auto found = pinned_allocations().find(pointer);
  if (found == pinned_allocations().end()) return;
  const std::size_t bytes = found->second;
  pinned_allocations().erase(found);
  free_aligned(pointer, bytes);
}

void zero_on_device(void* pointer, std::size_t bytes) {
  std::memset(pointer, 0, bytes);
}

void copy_to_device(CudaExec&, void* to, const void* from, std::size_t bytes) {
  refuse_while_recording("a copy from memory that is not pinned");
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void copy_to_host(CudaExec& exec, void* to, const void* from, std::size_t bytes) {
  exec.synchronize();
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void copy_on_device(CudaExec& exec, void* to, const void* from, std::size_t bytes) {
  const auto* source = static_cast<const std::byte*>(from);
  const auto* target = static_cast<const std::byte*>(to);
  MEMLANE_EXPECTS(source + bytes <= target || target + bytes <= source);  // a GPU copies in no order
  testing::queue(exec, [=] {
    if (bytes > 0) std::memcpy(to, from, bytes);
  });
}

void copy_from_pinned(CudaExec& exec, void* to, const void* from, std::size_t bytes) {
  require_pinned(from, bytes);
  testing::queue(exec, [=] { std::memcpy(to, from, bytes); });
}

void copy_to_pinned(CudaExec& exec, void* to, const void* from, std::size_t bytes) {
  require_pinned(to, bytes);
  testing::queue(exec, [=] { std::memcpy(to, from, bytes); });
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

void CudaExec::synchronize() {
  refuse_while_recording("a wait");
}

std::byte* CudaExec::scratch(std::size_t bytes) {
  internals_->scratch.reserve_discarding(bytes);
  testing::queue(
      *this, [data = internals_->scratch.data(), size = internals_->scratch.size()] { std::memset(data, 0xff, size); });
  return internals_->scratch.data();
}

struct CudaGraph::Internals {
  Recording work;
  bool is_there = false;
};

CudaGraph::CudaGraph(CudaExec&) : internals_(std::make_unique<Internals>()) {}
CudaGraph::~CudaGraph() = default;
CudaGraph::CudaGraph(CudaGraph&&) noexcept = default;

void CudaGraph::begin() {
  MEMLANE_EXPECTS(recording == nullptr && internals_->work.empty());
  recording = &internals_->work;
  broken_off = false;
}

void CudaGraph::end() {
  MEMLANE_EXPECTS(recording == &internals_->work);
  recording = nullptr;
  if (broken_off || !testing::emulated_device().makes_graphs) throw DeviceError("this graph cannot be made");
  internals_->is_there = true;
}

void CudaGraph::forget() noexcept {
  if (recording == &internals_->work) recording = nullptr;
  internals_->work.clear();
  internals_->is_there = false;
}

void CudaGraph::launch() {
  MEMLANE_EXPECTS(recording == nullptr && internals_->is_there);
  for (const auto& work : internals_->work) work();
}

}  // namespace memlane
