#pragma once

#include <cstddef>
#include <cstdint>

namespace memlane {

// As micro_kernels.h, this header is included by files compiled for instruction sets that the machine may lack: no
// inline functions.

inline constexpr std::size_t kQuantGroup = 256;    ///< elements along k that share a scale
inline constexpr std::size_t kQuantSubgroup = 32;  ///< elements along k that share a multiplier (int4)
inline constexpr std::size_t kQuantStep = 64;      ///< k is filled up with zeros to a multiple of this
inline constexpr int kLargestQuant = 127;          ///< of an input and of an int8 weight

/// Rows of a, quantised: four int8 along k in each unit. A row's `step`, 64 elements, is 16 units together.
struct QuantisedRows {
  const std::uint32_t* values;
  std::size_t stride;        ///< units from one row to the next, or in tiles from one 16 rows to the next
  const float* scales;       ///< [rows, scale_stride]: of each group
  const std::int32_t* sums;  ///< [rows, scale_stride]: of a group's values
  std::size_t scale_stride;
};

/// A row's scores above a threshold, and the ids of their keys: as many as were found so far, and room for those of all
/// further keys, up to a multiple of 32.
struct FoundScores {
  float threshold;
  std::uint32_t first_id;  ///< of the first key scanned
  float* scores;
  std::uint32_t* ids;
  std::size_t count;
};

/// Loops over int8 panels: for each group of k 32 scales, then [length / 4][32] units of four int8.
///
/// A group's product is a sum of whole numbers, below 2^24 and so exact in any order, as an int32 or as a float. Its
/// part of an element of c is that sum times (input scale * weight scale); parts are added in order of k, in float32.
/// So every function here gives the same bits for the same row.
struct QuantisedKernels {
  /// c[rows, 32] = a[rows, k] * b[k, 32], or += if accumulate. k: a multiple of kQuantStep.
  void (*gemm)(std::size_t rows, std::size_t k, const QuantisedRows& a, const std::byte* b, float* c, std::size_t ldc,
               bool accumulate);
  /// The same for kLeastTileRows rows and more; null where the set has no TileKernels. a in tiles
  /// [rows / 16][k / 64][16][16 units].
  /// Between TileKernels::shape and release.
  void (*gemm_tiles)(std::size_t rows, std::size_t k, const QuantisedRows& a, const std::byte* b, float* c,
                     std::size_t ldc, bool accumulate);
  /// Scores a[rows, k] . keys, as gemm makes them of panels of 32 keys, and adds those above each row's threshold to
  /// what it found, in order. keys: their number; those that the last panel lacks are not found.
  void (*scan)(std::size_t rows, std::size_t k, const QuantisedRows& a, const std::byte* panels,
               std::size_t panel_bytes, std::size_t keys, FoundScores* found);
  /// gemm of an int4 panel as it is stored, for a few rows; null where the set has none.
  void (*gemm_int4)(std::size_t rows, std::size_t k, const QuantisedRows& a, const std::byte* b, float* c,
                    std::size_t ldc, bool accumulate);
  /// k floats to int8 with one scale for each group, largest magnitude / 127, rounded to nearest. Steps lie step_bytes
  /// apart. A group with NaN or infinity gets the scale NaN; one below the normal numbers becomes zeros.
  void (*quantise_row)(const float* x, std::size_t k, std::int8_t* values, std::size_t step_bytes, float* scales,
                       std::int32_t* sums);
  /// One group of an int4 panel to one of an int8 panel. length: a multiple of kQuantStep.
  void (*expand_int4)(const std::byte* group, std::size_t length, std::byte* int8_group);
};

}  // namespace memlane
