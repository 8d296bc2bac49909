#include "kernels/array.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#define MEMLANE_MALLOC_IS_WATCHED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEMLANE_MALLOC_IS_WATCHED
#endif
#endif

namespace memlane::detail {

namespace {

constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLarge = 2 * kHugePage;

std::size_t rounded_up(std::size_t bytes, std::size_t unit) {
  if (bytes > std::numeric_limits<std::size_t>::max() - 2 * unit) throw std::bad_alloc();
  return (bytes + unit - 1) / unit * unit;
}

// Storage from here on is mapped: freed, it goes back to the system at once, where malloc would keep it. Sanitizers
// watch what malloc gives.
#if defined(MEMLANE_MALLOC_IS_WATCHED)
constexpr std::size_t kLeastMapped = std::numeric_limits<std::size_t>::max();
#else
constexpr std::size_t kLeastMapped = kLarge;
#endif

/// `bytes`, whole huge pages, at a multiple of their size.
void* map(std::size_t bytes) {
  void* whole = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (whole == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<std::byte*>(whole);
  const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(whole) % kHugePage) % kHugePage;
  if (before > 0) munmap(begin, before);
  if (before < kHugePage) munmap(begin + before + bytes, kHugePage - before);
  madvise(begin + before, bytes, MADV_HUGEPAGE);  // advice: failing changes speed only
  return begin + before;
}

}  // namespace

void* allocate_aligned(std::size_t bytes) {
  if (bytes >= kLeastMapped) return map(rounded_up(bytes, kHugePage));
  const std::size_t alignment = bytes >= kLarge ? kHugePage : kCacheLine;
  void* pointer = std::aligned_alloc(alignment, rounded_up(bytes, alignment));
  if (pointer == nullptr) throw std::bad_alloc();
  return pointer;
}

void free_aligned(void* pointer, std::size_t bytes) noexcept {
  if (pointer == nullptr) return;
  if (bytes >= kLeastMapped) {
    munmap(pointer, (bytes + kHugePage - 1) / kHugePage * kHugePage);
  } else {
    std::free(pointer);
  }
}

}  // namespace memlane::detail
