#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/layers.h"
#include "tests/kernels/kernel_fixture.h"

namespace memlane::testing {

/// A test that runs on a GPU; skipped where there is none.
class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "this machine has no GPU that CUDA can use";
    exec_.emplace(0);
  }
  CudaExec& exec() { return *exec_; }

  template <class T>
  CudaBuffer<T> on_gpu(const std::vector<T>& values) {
    CudaBuffer<T> buffer = uploaded(exec(), values.data(), values.size());
    exec().synchronize();
    return buffer;
  }
  /// An array that nothing has been written to: NaNs.
  CudaBuffer<float> poisoned(std::size_t size) { return on_gpu(std::vector<float>(size, NAN)); }

  template <class T>
  std::vector<T> back(const CudaBuffer<T>& buffer) {
    std::vector<T> values(buffer.size());
    detail::copy_to_host(exec(), values.data(), buffer.data(), buffer.bytes());
    return values;
  }

 private:
  std::optional<CudaExec> exec_;
};

/// Entries of the host on the GPU, and the table of their blocks.
class CudaEntriesCopy {
 public:
  /// blocks: [kv_heads, blocks] of bfloat16 entries.
  CudaEntriesCopy(CudaExec& exec, View<const EntryBlock, 2> blocks, std::size_t head_dim) {
    std::vector<cuda::Block> table;
    for (std::size_t head = 0; head < blocks.extent(0); ++head) {
      cuda::Block at;
      for (std::size_t i = 0; i < blocks.extent(1); ++i) {
        const EntryBlock& block = blocks.data()[head * blocks.extent(1) + i];
        at.keys = copy<std::uint32_t>(exec, block.keys, key_elements(block.count, head_dim, DType::bf16) / 2);
        at.values = copy<std::uint16_t>(exec, block.values, block.count * head_dim);
        at.count = static_cast<std::uint32_t>(block.count);
        table.push_back(at);
        at.first_tile += cuda::tiles_for(at.count);
        at.first_entry += at.count;
      }
      entries_.tiles = at.first_tile;
    }
    table_ = uploaded(exec, table.data(), table.size());
    exec.synchronize();
    entries_.blocks = table_.data();
    entries_.kv_heads = static_cast<std::uint32_t>(blocks.extent(0));
    entries_.block_count = static_cast<std::uint32_t>(blocks.extent(1));
  }

  const cuda::Entries& entries() const { return entries_; }

 private:
  template <class T>
  const T* copy(CudaExec& exec, const void* from, std::size_t size) {
    owned_.push_back(uploaded(exec, static_cast<const std::byte*>(from), size * sizeof(T)));
    return reinterpret_cast<const T*>(owned_.back().data());
  }

  std::vector<CudaBuffer<std::byte>> owned_;
  CudaBuffer<cuda::Block> table_;
  cuda::Entries entries_;
};

/// A partial on the GPU, poisoned.
class CudaOwnedPartial {
 public:
  CudaOwnedPartial(CudaExec& exec, std::size_t tokens, std::size_t heads, std::size_t head_dim)
      : host_(tokens, heads, head_dim),
        sum_(uploaded(exec, host_.sum.data(), host_.sum.size())),
        max_(uploaded(exec, host_.max.data(), host_.max.size())),
        weight_(uploaded(exec, host_.weight.data(), host_.weight.size())) {}
  CudaPartial view() {
    return {sum_.view<3>({host_.tokens, host_.heads, host_.head_dim}), max_.view<2>({host_.tokens, host_.heads}),
            weight_.view<2>({host_.tokens, host_.heads})};
  }
  const OwnedPartial& on_host(CudaExec& exec) {
    detail::copy_to_host(exec, host_.sum.data(), sum_.data(), sum_.bytes());
    detail::copy_to_host(exec, host_.max.data(), max_.data(), max_.bytes());
    detail::copy_to_host(exec, host_.weight.data(), weight_.data(), weight_.bytes());
    return host_;
  }

 private:
  OwnedPartial host_;
  CudaBuffer<float> sum_, max_, weight_;
};

}  // namespace memlane::testing
