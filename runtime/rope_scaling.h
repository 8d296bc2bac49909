#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace memlane {

/// How the frequencies of rotary position embedding (RoPE) are changed so that a model reads further than it was
/// trained. Below, d is head_dim, i = 0 ... d/2 - 1 the pair, t_i = theta^(-2i/d) its frequency in radians per token,
/// s the factor, L the original length, l the current length.
enum class RopeMethod {
  none,                ///< t_i
  linear,              ///< t_i / s (position interpolation, Chen et al. 2023)
  ntk_aware,           ///< t_i with theta * s^(d / (d - 2)) (bloc97 2023)
  ntk_by_parts,        ///< YaRN's frequencies, attention factor 1
  ntk_by_parts_paper,  ///< definition 2 of Peng et al. 2023: the ramp runs in L / wavelength; attention factor 1
  yarn,            ///< the code of Peng et al. 2023, as every runtime has it: the ramp runs in the number of the pair
  dynamic_ntk,     ///< ntk_aware with s l/L - (s - 1) in place of s, for l > L (transformers "dynamic")
  dynamic_linear,  ///< linear with l/L in place of s, for l > L (the code of Peng et al. 2023; it has no s)
  dynamic_yarn,    ///< yarn with max(s, l/L): s is 1, or what the model was tuned with (that code's `finetuned`)
  llama3,          ///< Llama 3.1's: a ramp in L / wavelength between low and high frequency factor
  longrope         ///< t_i divided by a list of factors (Phi-3; alias su): one list up to L, another beyond
};

/// Everything that fixes the rotation of a kind of layers, apart from head_dim and the current length. Members that a
/// method does not use do not matter to it.
struct RopeScaling {
  RopeMethod method = RopeMethod::none;
  double theta = 10000;                                     ///< the base before scaling
  double factor = 1;                                        ///< s >= 1; of dynamic YaRN the least
  std::size_t original_length = 0;                          ///< L in tokens; > 0 where the method uses it
  double beta_fast = 32;                                    ///< turns within L from which a pair is not interpolated
  double beta_slow = 1;                                     ///< turns within L up to which it is, fully
  bool truncate = true;                                     ///< round the ends of YaRN's ramp outwards to whole pairs
  std::optional<double> attention_factor = {};              ///< instead of the method's own
  std::optional<double> mscale = {}, mscale_all_dim = {};   ///< of yarn; used if both are there and not 0
  double low_freq_factor = 1, high_freq_factor = 4;         ///< of llama3
  std::vector<double> short_factor = {}, long_factor = {};  ///< of longrope, [head_dim / 2]
  bool operator==(const RopeScaling&) const = default;
};

/// What a layer rotates by. cos and sin are multiplied by the attention factor, so scores between a rotated query and a
/// rotated key are multiplied by its square.
struct RopeFrequencies {
  std::vector<double> inv_freq;  ///< radians per token, [head_dim / 2]
  double attention_factor = 1;
  bool operator==(const RopeFrequencies&) const = default;
};

/// length: the current (local) length in tokens; only methods that depend on it look at it.
/// The scaling must have passed check_rope_scaling for this head_dim.
RopeFrequencies rope_frequencies(const RopeScaling& scaling, std::size_t head_dim, std::size_t length);

/// Whether frequencies change with the current length.
bool depends_on_length(const RopeScaling& scaling);

/// Whether the method uses a factor / the original length.
bool uses_factor(RopeMethod method);
bool uses_original_length(RopeMethod method);

/// The factor at a length: s, or what the dynamic methods make of it.
double effective_factor(const RopeScaling& scaling, std::size_t length);
/// The base at a length: theta, or what the NTK methods make of it.
double effective_base(const RopeScaling& scaling, std::size_t head_dim, std::size_t length);

/// The pairs between which YaRN and NTK-by-parts pass from unscaled (up to low) to interpolated (from high on).
struct RopeRamp {
  double low = 0, high = 0;
};
RopeRamp yarn_ramp(const RopeScaling& scaling, std::size_t head_dim);

/// "ntk-by-parts-paper"
std::string name_of(RopeMethod method);

/// Throws InputError, naming `source` and the setting, if a number is outside its range, a list has not head_dim / 2
/// factors, or the base does not go with the method. source: a flag, or a file and key.
void check_rope_scaling(const RopeScaling& scaling, std::size_t head_dim, std::string_view source);

/// Parses METHOD[:key=value]*, such as "yarn:factor=4:original-length=2048:attention-factor=1". Keys: theta, factor (a
/// number, or auto), original-length, attention-factor, beta-fast, beta-slow, truncate, mscale, mscale-all-dim,
/// low-freq-factor, high-freq-factor, short-factor, long-factor (lists separated by commas or ';'). METHOD is a name of
/// name_of(), or "base" for nothing but another theta. A key that the method does not use is an error.
/// base: where theta, the original length and, for its own method, everything that is not said come from.
/// window: tokens, for factor=auto and where a needed factor is not said: max(1, window / original length); with 0 a
/// needed factor must be said.
/// Throws InputError that names flag and key. Lists are not yet held against head_dim: check_rope_scaling does that.
RopeScaling parse_rope_scaling(std::string_view flag, std::string_view text, const RopeScaling& base,
                               std::size_t window = 0);

/// The scaling in the words of parse_rope_scaling, in one form: what does not matter to the method is left out, so
/// equal texts rotate alike. Reading it back gives the same scaling.
std::string to_text(const RopeScaling& scaling);

}  // namespace memlane
