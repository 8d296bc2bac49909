#include "runtime/config_keys.h"

#include <cmath>
#include <cstdint>

#include "kernels/error.h"
#include "runtime/strict_json.h"

namespace memlane {

using nlohmann::json;

const json* ConfigKeys::find(std::string_view key) const {
  const auto found = object_.find(key);
  return found == object_.end() ? nullptr : &*found;
}

bool ConfigKeys::absent_or_null(std::string_view key) const {
  const json* value = find(key);
  return value == nullptr || value->is_null();
}

void ConfigKeys::refuse(std::string_view key, std::string_view expected, std::string_view advice) const {
  const json* value = find(key);
  input_error("{}: {}{}: expected {}, found {}{}{}", file_.string(), prefix_, key, expected,
              value == nullptr ? "nothing" : describe(*value), advice.empty() ? "" : "; ", advice);
}

std::size_t ConfigKeys::size(std::string_view key, std::size_t fallback, std::size_t max) const {
  const json* value = find(key);
  return value == nullptr ? fallback : integer(key, *value, 1, max);
}

std::size_t ConfigKeys::size_or_null(std::string_view key, std::size_t fallback, std::size_t max) const {
  return absent_or_null(key) ? fallback : size(key, fallback, max);
}

std::size_t ConfigKeys::integer(std::string_view key, const json& value, std::size_t min, std::size_t max) const {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (number >= min && number <= max) return number;
  }
  input_error("{}: {}{}: expected an integer from {} to {}, found {}", file_.string(), prefix_, key, min, max,
              describe(value));
}

double ConfigKeys::positive(std::string_view key, double fallback, double max) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  const double number = value->is_number() ? value->get<double>() : 0;
  if (!(std::isfinite(number) && number > 0 && number <= max)) {
    refuse(key, fmt::format("a number above 0 and at most {:g}", max));
  }
  return number;
}

double ConfigKeys::number_or_null(std::string_view key, double fallback, double least, double most) const {
  if (absent_or_null(key)) return fallback;
  const json& value = *find(key);
  const double number = value.is_number() ? value.get<double>() : least - 1;
  if (!(std::isfinite(number) && number >= least && number <= most)) {
    refuse(key, fmt::format("a number from {:g} to {:g}", least, most));
  }
  return number;
}

bool ConfigKeys::boolean(std::string_view key, bool fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) refuse(key, "true or false");
  return value->get<bool>();
}

std::string ConfigKeys::text(std::string_view key, std::string_view fallback, std::string_view expected) const {
  const json* value = find(key);
  if (value == nullptr) return std::string(fallback);
  if (!value->is_string()) refuse(key, expected);
  return value->get<std::string>();
}

}  // namespace memlane
