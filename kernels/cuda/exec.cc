#include "kernels/cuda/exec.h"

#include <fmt/format.h>

#include <atomic>

#include "kernels/cuda/internals.h"

namespace memlane {

namespace {
/// What cuBLAS recommends for Hopper.
constexpr std::size_t kBlasWorkspace = std::size_t{32} << 20;

std::atomic<std::uint64_t> allocations{0};  // and what was freed

/// For what a graph cannot do.
void refuse_while_recording(const CudaExec::Internals& in, const char* what) {
  if (in.recording) throw DeviceError(fmt::format("cuda:{}: {} while a graph is recorded", in.device, what));
}
}  // namespace

namespace detail {

void device_error(const char* call, const char* file, int line, cudaError_t error) {
  cudaGetLastError();  // errors that do not stick are forgotten, so that the next call is not blamed
  int device = -1;
  const bool known = cudaGetDevice(&device) == cudaSuccess;
  throw DeviceError(fmt::format("{}: {} ({}), {}:{}: {}", known ? fmt::format("cuda:{}", device) : "cuda",
                                cudaGetErrorString(error), cudaGetErrorName(error), file, line, call));
}

void device_error(const char* call, const char* file, int line, cublasStatus_t status) {
  throw DeviceError(fmt::format("cuBLASLt: {} ({}), {}:{}: {}", cublasLtGetStatusString(status),
                                cublasLtGetStatusName(status), file, line, call));
}

void* allocate_on_device(std::size_t bytes) {
  void* pointer = nullptr;
  ++allocations;
  const cudaError_t error = cudaMalloc(&pointer, bytes);
  if (error != cudaSuccess) {
    device_error(fmt::format("cudaMalloc of {} bytes", bytes).c_str(), __FILE__, __LINE__, error);
  }
  return pointer;
}

void free_on_device(void* pointer) noexcept {
  if (pointer == nullptr) return;
  ++allocations;
  cudaDeviceSynchronize();  // kernels may still use it
  cudaFree(pointer);        // nothing to do about an error here: the next checked call reports it
}

std::uint64_t device_allocations() noexcept {
  return allocations;
}

void* allocate_pinned(std::size_t bytes) {
  void* pointer = nullptr;
  const cudaError_t error = cudaHostAlloc(&pointer, bytes, cudaHostAllocDefault);
  if (error != cudaSuccess) {
    device_error(fmt::format("cudaHostAlloc of {} bytes", bytes).c_str(), __FILE__, __LINE__, error);
  }
  return pointer;
}

void free_pinned(void* pointer) noexcept {
  if (pointer != nullptr) cudaFreeHost(pointer);
}

void zero_on_device(void* pointer, std::size_t bytes) {
  MEMLANE_CUDA(cudaMemset(pointer, 0, bytes));
  MEMLANE_CUDA(cudaDeviceSynchronize());
}

void copy_to_device(CudaExec& exec, void* to, const void* from, std::size_t bytes) {
  refuse_while_recording(exec.internals(), "a copy from memory that is not pinned");
  // From memory that is not pinned, this returns once the source has been read.
  if (bytes > 0) MEMLANE_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, exec.internals().stream));
}

void copy_to_host(CudaExec& exec, void* to, const void* from, std::size_t bytes) {
  refuse_while_recording(exec.internals(), "a copy to memory that is not pinned");
  if (bytes > 0) MEMLANE_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, exec.internals().stream));
  exec.synchronize();
}

void copy_on_device(CudaExec& exec, void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) MEMLANE_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, exec.internals().stream));
}

void copy_from_pinned(CudaExec& exec, void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) MEMLANE_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, exec.internals().stream));
}

void copy_to_pinned(CudaExec& exec, void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) MEMLANE_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, exec.internals().stream));
}

}  // namespace detail

int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // no driver: not an error, but no device
  return 0;
}

CudaExec::Internals::~Internals() {
  plans.clear();
  if (blas != nullptr) cublasLtDestroy(blas);
  if (stream != nullptr) cudaStreamDestroy(stream);
}

CudaExec::CudaExec(int device) : internals_(std::make_unique<Internals>()) {
  Internals& in = *internals_;
  in.device = device;
  MEMLANE_CUDA(cudaSetDevice(device));
  cudaDeviceProp properties{};
  MEMLANE_CUDA(cudaGetDeviceProperties(&properties, device));
  in.name = properties.name;
  in.total_bytes = properties.totalGlobalMem;
  in.multiprocessors = static_cast<std::size_t>(properties.multiProcessorCount);
  in.shared_bytes = properties.sharedMemPerBlockOptin;
  if (properties.major < 8) {
    throw DeviceError(fmt::format("cuda:{}: {} has compute capability {}.{}; at least 8.0 is needed", device, in.name,
                                  properties.major, properties.minor));
  }
  MEMLANE_CUDA(cudaStreamCreateWithFlags(&in.stream, cudaStreamNonBlocking));
  MEMLANE_CUDA(cublasLtCreate(&in.blas));
  in.blas_workspace = CudaBuffer<std::byte>(kBlasWorkspace);
}

CudaExec::~CudaExec() = default;
CudaExec::CudaExec(CudaExec&&) noexcept = default;

int CudaExec::device() const {
  return internals_->device;
}

const std::string& CudaExec::name() const {
  return internals_->name;
}

std::size_t CudaExec::free_bytes() const {
  std::size_t free = 0, total = 0;
  MEMLANE_CUDA(cudaMemGetInfo(&free, &total));
  return free;
}

std::size_t CudaExec::total_bytes() const {
  return internals_->total_bytes;
}

std::size_t CudaExec::multiprocessors() const {
  return internals_->multiprocessors;
}

std::size_t CudaExec::shared_bytes() const {
  return internals_->shared_bytes;
}

void CudaExec::synchronize() {
  refuse_while_recording(*internals_, "a wait");
  MEMLANE_CUDA(cudaStreamSynchronize(internals_->stream));
}

std::byte* CudaExec::scratch(std::size_t bytes) {
  if (bytes > internals_->scratch.size()) synchronize();  // kernels may still use what is about to be freed
  internals_->scratch.reserve_discarding(bytes);
  return internals_->scratch.data();
}

}  // namespace memlane
