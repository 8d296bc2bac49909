#include "kernels/array.h"

#include <sys/mman.h>

#include <cstdlib>

namespace memlane::detail {

namespace {
constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
}  // namespace

void* allocate_aligned(std::size_t bytes) {
  const std::size_t alignment = bytes >= 2 * kHugePage ? kHugePage : kCacheLine;
  if (bytes > std::numeric_limits<std::size_t>::max() - alignment) throw std::bad_alloc();
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* pointer = std::aligned_alloc(alignment, rounded);
  if (pointer == nullptr) throw std::bad_alloc();
  if (alignment == kHugePage) madvise(pointer, rounded, MADV_HUGEPAGE);  // advice: failing changes speed only
  return pointer;
}

void free_aligned(void* pointer) noexcept {
  std::free(pointer);
}

}  // namespace memlane::detail
