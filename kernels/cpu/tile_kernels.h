#pragma once

#include <cstddef>
#include <cstdint>

namespace memlane {

/// Loops over matrix tiles (AMX), for bfloat16 only. Rows of a lie in tiles of 16 rows by 16 pairs, [rows / 16][k_pairs
/// / 16][16][16], both rounded up.
struct TileKernels {
  /// As gemm_bf16, but a in tiles, `a_tiles` pairs from one 16 rows to the next. b and c need hold no more than `rows`
  /// and `k_pairs`. Subnormal elements count as zero.
  void (*gemm)(std::size_t rows, std::size_t k_pairs, const std::uint32_t* a, std::size_t a_tiles,
               const std::uint32_t* b, float* c, std::size_t ldc, bool accumulate);
  /// At most 16 rows of k floats, rounded to bfloat16, to tiles.
  void (*pack)(std::size_t rows, std::size_t k, const float* a, std::size_t lda, std::uint32_t* tiles);
};

/// Pairs of bfloat16 that 16 rows of k elements take in tiles.
constexpr std::size_t tile_row_pairs(std::size_t k) {
  return (k + 31) / 32 * 256;
}

}  // namespace memlane
