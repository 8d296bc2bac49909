#include "runtime/rope_scaling.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "kernels/error.h"

namespace memlane {

namespace {

constexpr std::array<std::string_view, 11> kNames = {
    "none",           "linear",       "ntk-aware", "ntk-by-parts", "ntk-by-parts-paper", "yarn", "dynamic-ntk",
    "dynamic-linear", "dynamic-yarn", "llama3",    "longrope"};

std::vector<double> plain_frequencies(double theta, std::size_t head_dim) {
  std::vector<double> result(head_dim / 2);
  for (std::size_t i = 0; i < result.size(); ++i) {
    result[i] = 1.0 / std::pow(theta, static_cast<double>(2 * i) / static_cast<double>(head_dim));
  }
  return result;
}

double length_ratio(const RopeScaling& scaling, std::size_t length) {
  return std::max(1.0, static_cast<double>(length) / static_cast<double>(scaling.original_length));
}

/// theta * s^(d / (d - 2)). A head of one pair has the frequency 1 under every base.
double ntk_base(double theta, double factor, std::size_t head_dim) {
  if (head_dim <= 2) return theta;
  const auto d = static_cast<double>(head_dim);
  return theta * std::pow(factor, d / (d - 2));
}

/// The pair, as a fraction, that turns `turns` times within the original length (find_correction_dim of the YaRN code).
double pair_of_turns(double turns, const RopeScaling& scaling, std::size_t head_dim) {
  const double wavelength = static_cast<double>(scaling.original_length) / turns;
  return static_cast<double>(head_dim) * std::log(wavelength / (2 * std::numbers::pi)) / (2 * std::log(scaling.theta));
}

/// interpolated: 0 leaves t_i as it is, 1 gives t_i / factor.
double blend(double frequency, double factor, double interpolated) {
  return frequency / factor * interpolated + frequency * (1 - interpolated);
}

std::vector<double> yarn_frequencies(const RopeScaling& scaling, std::size_t head_dim, double factor) {
  std::vector<double> result = plain_frequencies(scaling.theta, head_dim);
  const RopeRamp ramp = yarn_ramp(scaling, head_dim);
  for (std::size_t i = 0; i < result.size(); ++i) {
    const double at = (static_cast<double>(i) - ramp.low) / (ramp.high - ramp.low);
    result[i] = blend(result[i], factor, std::clamp(at, 0.0, 1.0));
  }
  return result;
}

/// Frequencies blended by their turns within L: interpolated up to `few` turns, left as they are from `many` on.
/// Definition 2 of the YaRN paper with (beta_slow, beta_fast); Meta's Llama 3.1 code and transformers' rope type
/// "llama3" with (low_freq_factor, high_freq_factor).
std::vector<double> frequencies_by_turns(const RopeScaling& scaling, std::size_t head_dim, double few, double many) {
  std::vector<double> result = plain_frequencies(scaling.theta, head_dim);
  for (double& frequency : result) {
    const double turns = static_cast<double>(scaling.original_length) * frequency / (2 * std::numbers::pi);
    frequency = blend(frequency, scaling.factor, 1 - std::clamp((turns - few) / (many - few), 0.0, 1.0));
  }
  return result;
}

std::vector<double> longrope_frequencies(const RopeScaling& scaling, std::size_t head_dim, std::size_t length) {
  std::vector<double> result = plain_frequencies(scaling.theta, head_dim);
  const std::vector<double>& divisors = length > scaling.original_length ? scaling.long_factor : scaling.short_factor;
  MEMLANE_EXPECTS(divisors.size() == result.size());
  for (std::size_t i = 0; i < result.size(); ++i) result[i] /= divisors[i];
  return result;
}

/// 0.1 m ln(s) + 1: YaRN's attention factor (its square is the paper's 1/t).
double yarn_mscale(double factor, double m = 1) {
  return factor > 1 ? 0.1 * m * std::log(factor) + 1 : 1;
}

double attention_factor(const RopeScaling& scaling, double factor) {
  if (scaling.attention_factor) return *scaling.attention_factor;
  if (scaling.method == RopeMethod::yarn || scaling.method == RopeMethod::dynamic_yarn) {
    const bool both = scaling.mscale.value_or(0) != 0 && scaling.mscale_all_dim.value_or(0) != 0;
    return both ? yarn_mscale(factor, *scaling.mscale) / yarn_mscale(factor, *scaling.mscale_all_dim)
                : yarn_mscale(factor);
  }
  if (scaling.method == RopeMethod::longrope && factor > 1) {
    return std::sqrt(1 + std::log(factor) / std::log(static_cast<double>(scaling.original_length)));
  }
  return 1;
}

/// Checks of single values, each error naming the source and the setting.
class Checks {
 public:
  explicit Checks(std::string_view source) : source_(source) {}

  void within(std::string_view key, double value, double least, double most) const {
    if (std::isfinite(value) && value >= least && value <= most) return;
    input_error("{}: {}: expected a number from {:g} to {:g}, found {:g}", source_, key, least, most, value);
  }
  void within(std::string_view key, const std::optional<double>& value, double least, double most) const {
    if (value) within(key, *value, least, most);
  }
  void above(std::string_view key, double value, std::string_view other_key, double other) const {
    if (value > other) return;
    input_error("{}: {}: expected a number above {}, {:g}, found {:g}", source_, key, other_key, other, value);
  }
  void divisors(std::string_view key, const std::vector<double>& list, std::size_t size) const {
    if (list.size() != size) {
      input_error("{}: {}: expected {} numbers, one for each pair of head_dim {}, found {}", source_, key, size,
                  2 * size, list.size());
    }
    for (const double value : list) within(key, value, 1e-6, 1e6);
  }

 private:
  std::string_view source_;
};

bool has_ramp(RopeMethod method) {
  return method == RopeMethod::ntk_by_parts || method == RopeMethod::ntk_by_parts_paper || method == RopeMethod::yarn ||
         method == RopeMethod::dynamic_yarn;
}

}  // namespace

std::string name_of(RopeMethod method) {
  return std::string(kNames[static_cast<std::size_t>(method)]);
}

bool depends_on_length(const RopeScaling& scaling) {
  switch (scaling.method) {
    case RopeMethod::dynamic_ntk:
    case RopeMethod::dynamic_linear:
    case RopeMethod::dynamic_yarn:
    case RopeMethod::longrope:
      return true;
    default:
      return false;
  }
}

bool uses_factor(RopeMethod method) {
  return method != RopeMethod::none && method != RopeMethod::dynamic_linear;
}

bool uses_original_length(RopeMethod method) {
  return method != RopeMethod::none && method != RopeMethod::linear && method != RopeMethod::ntk_aware;
}

double effective_factor(const RopeScaling& scaling, std::size_t length) {
  switch (scaling.method) {
    case RopeMethod::none:
      return 1;
    case RopeMethod::dynamic_ntk:
      return scaling.factor * length_ratio(scaling, length) - (scaling.factor - 1);
    case RopeMethod::dynamic_linear:
      return length_ratio(scaling, length);
    case RopeMethod::dynamic_yarn:
      return std::max(scaling.factor, length_ratio(scaling, length));
    default:
      return scaling.factor;
  }
}

double effective_base(const RopeScaling& scaling, std::size_t head_dim, std::size_t length) {
  const bool ntk = scaling.method == RopeMethod::ntk_aware || scaling.method == RopeMethod::dynamic_ntk;
  return ntk ? ntk_base(scaling.theta, effective_factor(scaling, length), head_dim) : scaling.theta;
}

RopeRamp yarn_ramp(const RopeScaling& scaling, std::size_t head_dim) {
  RopeRamp ramp = {pair_of_turns(scaling.beta_fast, scaling, head_dim),
                   pair_of_turns(scaling.beta_slow, scaling, head_dim)};
  if (scaling.truncate) ramp = {std::floor(ramp.low), std::ceil(ramp.high)};
  ramp.low = std::max(ramp.low, 0.0);
  ramp.high = std::min(ramp.high, static_cast<double>(head_dim) - 1);  // not d/2 - 1: as all runtimes have it
  if (ramp.low == ramp.high) ramp.high += 0.001;
  return ramp;
}

RopeFrequencies rope_frequencies(const RopeScaling& scaling, std::size_t head_dim, std::size_t length) {
  const double factor = effective_factor(scaling, length);
  RopeFrequencies result;
  result.attention_factor = attention_factor(scaling, factor);
  switch (scaling.method) {
    case RopeMethod::none:
    case RopeMethod::ntk_aware:
    case RopeMethod::dynamic_ntk:
      result.inv_freq = plain_frequencies(effective_base(scaling, head_dim, length), head_dim);
      break;
    case RopeMethod::linear:
    case RopeMethod::dynamic_linear:
      result.inv_freq = plain_frequencies(scaling.theta, head_dim);
      for (double& frequency : result.inv_freq) frequency /= factor;
      break;
    case RopeMethod::ntk_by_parts:
    case RopeMethod::yarn:
    case RopeMethod::dynamic_yarn:
      result.inv_freq = yarn_frequencies(scaling, head_dim, factor);
      break;
    case RopeMethod::ntk_by_parts_paper:
      result.inv_freq = frequencies_by_turns(scaling, head_dim, scaling.beta_slow, scaling.beta_fast);
      break;
    case RopeMethod::llama3:
      result.inv_freq = frequencies_by_turns(scaling, head_dim, scaling.low_freq_factor, scaling.high_freq_factor);
      break;
    case RopeMethod::longrope:
      result.inv_freq = longrope_frequencies(scaling, head_dim, length);
      break;
  }
  return result;
}

void check_rope_scaling(const RopeScaling& scaling, std::size_t head_dim, std::string_view source) {
  const Checks checks(source);
  checks.within("theta", scaling.theta, 1e-30, 1e30);
  checks.within("attention factor", scaling.attention_factor, 1e-3, 1e3);
  if (uses_factor(scaling.method)) checks.within("factor", scaling.factor, 1, 1e6);
  if (uses_original_length(scaling.method)) {
    checks.within("original length", static_cast<double>(scaling.original_length), 1, 0x1p30);
  }
  if (has_ramp(scaling.method)) {
    checks.within("beta_slow", scaling.beta_slow, 1e-6, 1e6);
    checks.within("beta_fast", scaling.beta_fast, 1e-6, 1e6);
    checks.above("beta_fast", scaling.beta_fast, "beta_slow", scaling.beta_slow);
    checks.above("theta", scaling.theta, "the least base of a ramp", 1);
    checks.within("mscale", scaling.mscale, 0, 100);
    checks.within("mscale_all_dim", scaling.mscale_all_dim, 0, 100);
  }
  if (scaling.method == RopeMethod::llama3) {
    checks.within("low_freq_factor", scaling.low_freq_factor, 1e-6, 1e6);
    checks.within("high_freq_factor", scaling.high_freq_factor, 1e-6, 1e6);
    checks.above("high_freq_factor", scaling.high_freq_factor, "low_freq_factor", scaling.low_freq_factor);
  }
  if (scaling.method == RopeMethod::longrope) {
    checks.above("original length", static_cast<double>(scaling.original_length), "the least of longrope", 1);
    checks.divisors("short_factor", scaling.short_factor, head_dim / 2);
    checks.divisors("long_factor", scaling.long_factor, head_dim / 2);
  }
}

}  // namespace memlane
