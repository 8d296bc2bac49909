// The text form of a RopeScaling: what flags, method names and memory files say.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "kernels/error.h"
#include "runtime/rope_scaling.h"

namespace memlane {

namespace {

constexpr RopeMethod kMethods[] = {RopeMethod::none,
                                   RopeMethod::linear,
                                   RopeMethod::ntk_aware,
                                   RopeMethod::ntk_by_parts,
                                   RopeMethod::ntk_by_parts_paper,
                                   RopeMethod::yarn,
                                   RopeMethod::dynamic_ntk,
                                   RopeMethod::dynamic_linear,
                                   RopeMethod::dynamic_yarn,
                                   RopeMethod::llama3,
                                   RopeMethod::longrope};

/// Takes what stands before the next separator off a text.
std::string_view take_until(std::string_view& text, char separator) {
  const std::size_t end = std::min(text.find(separator), text.size());
  const std::string_view taken = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return taken;
}

bool has_mscale(RopeMethod method) {
  return method == RopeMethod::yarn || method == RopeMethod::dynamic_yarn;
}
bool has_index_ramp(RopeMethod method) {
  return has_mscale(method) || method == RopeMethod::ntk_by_parts;
}
bool has_betas(RopeMethod method) {
  return has_index_ramp(method) || method == RopeMethod::ntk_by_parts_paper;
}

/// Reads the keys of one text into a scaling.
class SpecReader {
 public:
  SpecReader(std::string_view flag, std::string_view text, RopeScaling& scaling)
      : flag_(flag), text_(text), scaling_(scaling) {}

  /// Returns false if the method has no such key.
  bool read(std::string_view key, std::string_view value) {
    const RopeMethod method = scaling_.method;
    if (key == "theta") return set(scaling_.theta, number(key, value));
    if (key == "attention-factor") return set(scaling_.attention_factor, number(key, value));
    if (key == "factor" && uses_factor(method)) {
      factor_said = value != "auto";
      return factor_said ? set(scaling_.factor, number(key, value)) : true;
    }
    if (key == "original-length" && uses_original_length(method)) {
      return set(scaling_.original_length, whole(key, value));
    }
    if (key == "beta-fast" && has_betas(method)) return set(scaling_.beta_fast, number(key, value));
    if (key == "beta-slow" && has_betas(method)) return set(scaling_.beta_slow, number(key, value));
    if (key == "truncate" && has_index_ramp(method)) return set(scaling_.truncate, boolean(key, value));
    if (key == "mscale" && has_mscale(method)) return set(scaling_.mscale, number(key, value));
    if (key == "mscale-all-dim" && has_mscale(method)) return set(scaling_.mscale_all_dim, number(key, value));
    if (method == RopeMethod::llama3) {
      if (key == "low-freq-factor") return set(scaling_.low_freq_factor, number(key, value));
      if (key == "high-freq-factor") return set(scaling_.high_freq_factor, number(key, value));
    }
    if (method == RopeMethod::longrope) {
      if (key == "short-factor") return set(scaling_.short_factor, list(key, value));
      if (key == "long-factor") return set(scaling_.long_factor, list(key, value));
    }
    return false;
  }

  bool factor_said = false;

 private:
  template <class To, class From>
  static bool set(To& to, From&& from) {
    to = std::forward<From>(from);
    return true;
  }

  [[noreturn]] void refuse(std::string_view key, std::string_view expected, std::string_view found) const {
    input_error("{} {}: {}: expected {}, found '{}'", flag_, text_, key, expected, found);
  }

  double number(std::string_view key, std::string_view value) const {
    double result = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
    if (error != std::errc() || end != value.data() + value.size() || !std::isfinite(result)) {
      refuse(key, "a number", value);
    }
    return result;
  }
  std::size_t whole(std::string_view key, std::string_view value) const {
    std::size_t result = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
    if (error != std::errc() || end != value.data() + value.size()) refuse(key, "a whole number", value);
    return result;
  }
  bool boolean(std::string_view key, std::string_view value) const {
    if (value != "true" && value != "false") refuse(key, "true or false", value);
    return value == "true";
  }
  std::vector<double> list(std::string_view key, std::string_view value) const {
    std::string commas(value);
    std::replace(commas.begin(), commas.end(), ';', ',');
    std::vector<double> result;
    for (std::string_view rest = commas; !rest.empty();) result.push_back(number(key, take_until(rest, ',')));
    return result;
  }

  std::string_view flag_, text_;
  RopeScaling& scaling_;
};

/// The scaling that a text with this method starts from.
RopeScaling start_from(RopeMethod method, const RopeScaling& base) {
  if (method == base.method) return base;
  RopeScaling result;
  result.method = method;
  result.theta = base.theta;
  result.original_length = base.original_length;
  return result;
}

RopeMethod method_named(std::string_view flag, std::string_view text, std::string_view name) {
  if (name == "base") return RopeMethod::none;
  for (const RopeMethod method : kMethods) {
    if (name == name_of(method)) return method;
  }
  std::string names;
  for (const RopeMethod method : kMethods) names += name_of(method) + ", ";
  input_error("{} {}: expected a RoPE method first ({}base), found '{}'", flag, text, names, name);
}

}  // namespace

RopeScaling parse_rope_scaling(std::string_view flag, std::string_view text, const RopeScaling& base,
                               std::size_t window) {
  std::string_view rest = text;
  const std::string_view name = take_until(rest, ':');
  RopeScaling scaling = start_from(method_named(flag, text, name), base);
  SpecReader reader(flag, text, scaling);
  std::vector<std::string_view> seen;
  while (!rest.empty()) {
    std::string_view value = take_until(rest, ':');
    const std::string_view key = take_until(value, '=');
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) {
      input_error("{} {}: {}: expected once, found twice", flag, text, key);
    }
    seen.push_back(key);
    if (!reader.read(key, value)) {
      input_error("{} {}: expected keys of the method {}, found '{}', which it does not use", flag, text, name, key);
    }
  }
  const auto said = [&](std::string_view key) { return std::find(seen.begin(), seen.end(), key) != seen.end(); };
  if (name == "base" && !said("theta")) input_error("{} {}: expected a theta, as in base:theta=1e6", flag, text);
  const bool dynamic = depends_on_length(scaling) && scaling.method != RopeMethod::longrope;
  const bool needed = uses_factor(scaling.method) && !dynamic && scaling.method != base.method;
  if (!reader.factor_said && (needed || said("factor"))) {
    if (window == 0) input_error("{} {}: expected a factor, as in {}:factor=4", flag, text, name);
    const auto original = static_cast<double>(std::max<std::size_t>(scaling.original_length, 1));
    scaling.factor = std::max(1.0, static_cast<double>(window) / original);
  }
  return scaling;
}

std::string to_text(const RopeScaling& scaling) {
  const RopeMethod method = scaling.method;
  std::string text = fmt::format("{}:theta={}", name_of(method), scaling.theta);
  if (uses_factor(method)) text += fmt::format(":factor={}", scaling.factor);
  if (uses_original_length(method)) text += fmt::format(":original-length={}", scaling.original_length);
  const auto add = [&](std::string_view key, const std::optional<double>& value) {
    if (value) text += fmt::format(":{}={}", key, *value);
  };
  add("attention-factor", scaling.attention_factor);
  if (has_betas(method)) text += fmt::format(":beta-fast={}:beta-slow={}", scaling.beta_fast, scaling.beta_slow);
  if (has_index_ramp(method) && !scaling.truncate) text += ":truncate=false";
  if (has_mscale(method)) add("mscale", scaling.mscale);
  if (has_mscale(method)) add("mscale-all-dim", scaling.mscale_all_dim);
  if (method == RopeMethod::llama3) {
    text += fmt::format(":low-freq-factor={}:high-freq-factor={}", scaling.low_freq_factor, scaling.high_freq_factor);
  }
  if (method == RopeMethod::longrope) {
    text += fmt::format(":short-factor={}:long-factor={}", fmt::join(scaling.short_factor, ","),
                        fmt::join(scaling.long_factor, ","));
  }
  return text;
}

}  // namespace memlane
