#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/quantised_kernels.h"

namespace memlane {

inline constexpr std::size_t kTileAttendEntries = 256;  ///< entries that attention takes at once
inline constexpr std::size_t kFewTileRows = 4;          ///< rows up to which vector units beat tiles
inline constexpr std::size_t kMostScannedRows = 32;     ///< at once

/// Query rows against at most kTileAttendEntries consecutive entries of a block: scores, online softmax, weighted sum.
struct TileAttention {
  std::size_t rows;
  std::size_t head_dim;
  const std::uint32_t* queries;     ///< in tiles, rows filled up to a multiple of 32 with anything
  const float* query_rows;          ///< the same as [rows][head_dim, rounded up to even], for attend_rows
  const std::uint32_t* keys;        ///< their first panel
  const std::uint32_t* values;      ///< from pack_values
  const std::uint16_t* value_rows;  ///< as they are stored, for attend_rows
  std::size_t entries;
  const std::uint32_t* seen_begin;  ///< [rows]: row sees entries [seen_begin, seen_end) of these
  const std::uint32_t* seen_end;
  float scale;             ///< of scores, above 0
  float* sum;              ///< [rows filled up to a multiple of 32, sum_stride]; updated, as are
  std::size_t sum_stride;  ///< a multiple of 32
  float* max;              ///< [rows]
  float* weight;           ///< [rows]
};

/// Products and attention of bfloat16 numbers, by matrix tiles (AMX) or in vector registers (AVX512-BF16). Rows of a lie
/// in tiles of 16 rows by 16 pairs, [rows / 16][k_pairs / 16][16][16], both rounded up.
struct TileKernels {
  bool matrix;  ///< by matrix tiles (AMX), not in vector registers

  /// As gemm_bf16, but a in tiles, `a_tiles` pairs from one 16 rows to the next. b and c need hold no more than `rows`
  /// and `k_pairs`. Subnormal elements count as zero.
  void (*gemm)(std::size_t rows, std::size_t k_pairs, const std::uint32_t* a, std::size_t a_tiles,
               const std::uint32_t* b, float* c, std::size_t ldc, bool accumulate);
  /// At most 16 rows of k floats, rounded to bfloat16, subnormal ones to zero, to tiles; of a row alone, `tiles` may be
  /// where its first 16 pairs lie in them.
  void (*pack)(std::size_t rows, std::size_t k, const float* a, std::size_t lda, std::uint32_t* tiles);
  void (*attend)(const TileAttention& on);
  /// The same to the last bit for at most kFewTileRows rows, on vector units: so few leave most of a tile empty.
  void (*attend_rows)(const TileAttention& on);

  /// Scores q . k, the bits that attend computes, of at most kMostScannedRows rows with at most kTileAttendEntries
  /// entries whose first panel is `keys`; adds those above each row's threshold to what it found, in order. queries: in
  /// tiles; found: [rows]. Between shape and release, which are for the thread.
  void (*scan)(std::size_t rows, std::size_t head_dim, const std::uint32_t* queries, const std::uint32_t* keys,
               std::size_t entries, FoundScores* found);
  void (*shape)();
  void (*release)();
  /// The same for at most kFewTileRows rows, outside shape and release. query_rows: the same queries as
  /// [rows][head_dim, rounded up to even].
  void (*scan_rows)(std::size_t rows, std::size_t head_dim, const std::uint32_t* queries, const float* query_rows,
                    const std::uint32_t* keys, std::size_t entries, FoundScores* found);
  /// Values [entries][head_dim] in pairs of entries: [ceil(head_dim / 32)][kTileAttendEntries / 2][32][2], zero beyond
  /// the end up to a multiple of 32 entries.
  void (*pack_values)(const std::uint16_t* values, std::size_t entries, std::size_t head_dim, std::uint32_t* out);
};

}  // namespace memlane
