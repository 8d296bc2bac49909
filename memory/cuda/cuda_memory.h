#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "kernels/cuda/attention.h"
#include "memory/memory.h"

namespace memlane {

/// A memory as the memory layers of a GPU see it: copies of its documents' segments on the device, made when they are
/// first attended to and again for what documents gain. The host's segments stay what the memory is made of.
class CudaMemory {
 public:
  /// memory: must outlive this. Throws InputError if its entries are not bfloat16, its heads larger than the kernels
  /// take, or its lookup is one that the GPU does not have.
  explicit CudaMemory(const Memory& memory);

  bool empty() const { return memory_.empty(); }

  /// As Memory::attend. Throws InputError if the entries do not fit on the device.
  void attend(CudaExec& exec, std::size_t layer_slot, View<const float, 3, Cuda> queries, float scale, CudaPartial out);

  /// Bytes that `entries` entries in windows of `window` take on the device.
  static std::size_t bytes(const EntryShape& shape, std::size_t entries, std::size_t window);

 private:
  /// A copied segment.
  struct Copy {
    const std::byte* source = nullptr;
    std::size_t count = 0;
    CudaBuffer<std::byte> bytes;
  };
  void follow(CudaExec& exec);
  void copy(CudaExec& exec, const Segment& segment);
  void make_tables(CudaExec& exec);
  void attend_top_k(CudaExec& exec, std::size_t layer_slot, View<const float, 3, Cuda> queries, float scale,
                    CudaPartial out);
  cuda::Entries entries(std::size_t layer_slot) const;

  const Memory& memory_;
  std::vector<Copy> copies_;                     // of the documents' segments, one document behind the other
  std::vector<CudaBuffer<cuda::Block>> tables_;  // [layer slots] of [kv_heads][copies]
  std::size_t tiles_ = 0;                        // of one head
  CudaBuffer<std::int32_t> ids_;
  CudaBuffer<float> scores_;
};

}  // namespace memlane
