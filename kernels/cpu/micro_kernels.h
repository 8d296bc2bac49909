#pragma once

#include <cstddef>
#include <cstdint>

namespace memlane {

struct TileKernels;
struct QuantisedKernels;

/// Types whose best rate can be measured.
enum class PeakKind { f32, bf16, int8 };

/// The innermost loops, compiled once per instruction set from one source (micro_kernels.inc) and chosen at run time.
///
/// This header is included by files compiled for instruction sets that the running machine may lack. It and
/// micro_kernels.inc must not define or instantiate any inline function of other headers: the linker could keep that
/// copy for the whole program.
struct MicroKernels {
  const char* name;
  std::size_t product_rows;           ///< that gemm_f32 and gemm_bf16 multiply together: so often they read a panel
  const TileKernels* tiles;           ///< tile_kernels.h; null where the set has none
  const QuantisedKernels* quantised;  ///< quantised_kernels.h

  /// c[rows, 32] = a[rows, k] * b[k, 32], or += if accumulate. Each element is one chain of multiply-adds in order of
  /// k, so a row's result does not depend on the other rows. a and c have row strides lda and ldc; b is one panel.
  void (*gemm_f32)(std::size_t rows, std::size_t k, const float* a, std::size_t lda, const float* b, float* c,
                   std::size_t ldc, bool accumulate);
  /// The same with pairs of bfloat16 along k in each 32-bit unit: a[rows, k_pairs], b[k_pairs, 32].
  void (*gemm_bf16)(std::size_t rows, std::size_t k_pairs, const std::uint32_t* a, std::size_t lda,
                    const std::uint32_t* b, float* c, std::size_t ldc, bool accumulate);

  /// Largest of count > 0 elements; count is a multiple of 32.
  float (*row_max)(const float* x, std::size_t count);
  /// x = exp(x - max), 0 where x is -inf; returns the sum. count is a multiple of 32.
  float (*exp_row)(float* x, std::size_t count, float max);
  /// x *= factor.
  void (*scale_row)(float* x, std::size_t count, float factor);

  /// Writes those of `count` scores that are above the threshold, and their ids, which count from first_id, in order;
  /// returns how many. row can be read, scores and ids written, up to a multiple of 32.
  std::size_t (*collect)(const float* row, std::size_t count, float threshold, std::uint32_t first_id, float* scores,
                         std::uint32_t* ids);
  /// Keeps the k best of count >= k >= 1 candidates, in their order; of equal scores the first. Returns the least score
  /// kept. scores, ids: can be read and written, places: scratch, up to a multiple of 32.
  float (*keep_best)(std::size_t k, std::size_t count, float* scores, std::uint32_t* ids, std::int32_t* places);

  /// q . k with one key of a panel of bfloat16 pairs [pairs][32]. query: [2][pairs], first the even elements. Its
  /// neighbours are scored as well and dropped: bringing one key's units together takes longer.
  float (*score_key_bf16)(const float* query, const std::uint32_t* panel, std::size_t pairs, std::size_t key);
  /// sum += weights[i] * values[i], in order of i. values: [count] rows of head_dim elements, an even number, anywhere.
  void (*add_values_bf16)(std::size_t count, const float* weights, const std::uint16_t* const* values,
                          std::size_t head_dim, float* sum);

  /// out = x / sqrt(mean(x^2) + epsilon) * weight.
  void (*rms_norm_row)(const float* x, const float* weight, std::size_t count, float epsilon, float* out);
  /// out = silu(gate) * up with silu(x) = x / (1 + exp(-x)).
  void (*swiglu_row)(const float* gate, const float* up, std::size_t count, float* out);

  /// Storage types to float and back (round to nearest even).
  void (*widen_bf16)(const std::uint16_t* x, std::size_t count, float* out);
  void (*widen_f16)(const std::uint16_t* x, std::size_t count, float* out);
  void (*narrow_bf16)(const float* x, std::size_t count, std::uint16_t* out);
  /// To bfloat16 and back, in place.
  void (*round_bf16)(float* x, std::size_t count);
  /// Whether all are bfloat16 values.
  bool (*is_bf16)(const float* x, std::size_t count);
  /// A panel of pairs [pairs][32][2] to floats [2 * pairs][32].
  void (*widen_bf16_panel)(const std::uint32_t* panel, std::size_t pairs, float* out);
  void (*widen_f16_panel)(const std::uint32_t* panel, std::size_t pairs, float* out);

  /// Multiply-adds in registers or tiles, `repeats` times as many as the loop has; returns the operations, two for
  /// each, 0 if the set has none of the kind. int8: without tiles the processor must have AVX512-VNNI, where the set is
  /// avx512 or avx512-bf16.
  double (*peak)(PeakKind kind, std::size_t repeats);
  /// Reads every unit of x; count is a multiple of 64. Returns something that depends on all.
  std::uint64_t (*read)(const std::uint32_t* x, std::size_t count);
};

/// Instruction sets, each including those before it.
enum class InstructionSet { portable, avx2, avx512, avx512_bf16, avx512_amx };

/// The best set that this machine has (and that this program was built with).
InstructionSet detect_instruction_set();

/// The loops for a set. Throws InputError if this machine or this build lacks it.
const MicroKernels& micro_kernels(InstructionSet set);

/// "portable", "avx2", "avx512", "avx512-bf16", "avx512-amx"; the inverse throws InputError for another name.
const char* name_of(InstructionSet set);
InstructionSet instruction_set_named(const char* name);

}  // namespace memlane
