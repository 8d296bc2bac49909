#pragma once

// Only for sources in kernels/cuda: the types of CUDA.

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <array>
#include <map>
#include <memory>
#include <string>

#include "kernels/cuda/exec.h"

namespace memlane {

namespace detail {
/// Throws DeviceError that names the call, its place and what CUDA says.
[[noreturn]] void device_error(const char* call, const char* file, int line, cudaError_t error);
[[noreturn]] void device_error(const char* call, const char* file, int line, cublasStatus_t status);

inline void check_device(cudaError_t error, const char* call, const char* file, int line) {
  if (error != cudaSuccess) device_error(call, file, line, error);
}
inline void check_device(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status != CUBLAS_STATUS_SUCCESS) device_error(call, file, line, status);
}
}  // namespace detail

/// Every call of CUDA and cuBLASLt goes through this.
#define MEMLANE_CUDA(call) ::memlane::detail::check_device((call), #call, __FILE__, __LINE__)
/// After every launch: a launch that was refused.
#define MEMLANE_LAUNCHED(kernel) \
  ::memlane::detail::check_device(cudaGetLastError(), "launch of " kernel, __FILE__, __LINE__)

/// A product's descriptors and the algorithm chosen for it.
struct MatmulPlan;

struct CudaExec::Internals {
  int device = 0;
  std::string name;
  std::size_t total_bytes = 0, multiprocessors = 0, shared_bytes = 0;
  cudaStream_t stream = nullptr;
  bool recording = false;  // what goes to the stream becomes a graph
  cublasLtHandle_t blas = nullptr;
  CudaBuffer<std::byte> blas_workspace;
  CudaBuffer<std::byte> scratch;
  std::map<std::array<std::size_t, 4>, std::shared_ptr<MatmulPlan>> plans;  // by m, n, k and the stride of out

  Internals() = default;
  Internals(const Internals&) = delete;
  Internals& operator=(const Internals&) = delete;
  ~Internals();
};

}  // namespace memlane
