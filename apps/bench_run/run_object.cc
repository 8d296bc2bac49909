#include "apps/bench_run/run_object.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "kernels/error.h"
#include "runtime/strict_json.h"

namespace memlane {

namespace {

using nlohmann::json;

constexpr std::size_t kMost = std::size_t{1} << 30;
constexpr std::size_t kLongestText = 4000;

template <class T>
bool ascends(const std::vector<T>& values) {
  return std::adjacent_find(values.begin(), values.end(), [](T a, T b) { return !(a < b); }) == values.end();
}

}  // namespace

RunObject::RunObject(const json& value, std::filesystem::path file, std::string where)
    : value_(value), file_(std::move(file)), where_(std::move(where)) {
  if (!value_.is_object()) fail(where_, "an object {...}", value_);
}

void RunObject::fail(const std::string& place, const std::string& expected, const json& found) const {
  input_error("{}: {}: expected {}, found {}; correct the run file", file_.string(), place, expected, describe(found));
}

bool RunObject::has(const std::string& key) {
  asked_.push_back(key);
  return value_.contains(key);
}

const json& RunObject::at(const std::string& key) {
  if (!has(key)) input_error("{}: {}: expected it, found nothing; add it to the run file", file_.string(), place(key));
  return value_.at(key);
}

std::string RunObject::checked_text(const json& value, const std::string& place) const {
  const bool fits = value.is_string() && !value.get_ref<const std::string&>().empty() &&
                    value.get_ref<const std::string&>().size() <= kLongestText;
  if (!fits) fail(place, fmt::format("text of 1 to {} bytes", kLongestText), value);
  std::string text = value.get<std::string>();
  const bool printable =
      std::none_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
  if (!printable) fail(place, "text without control characters", value);
  return text;
}

std::string RunObject::checked_name(const std::string& text, const std::string& place) const {
  const bool plain =
      !text.empty() && text.size() <= 64 && text.front() != '-' && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
      });
  if (!plain) fail(place, "a name of letters, digits, - and _ (files are called after it)", text);
  return text;
}

std::size_t RunObject::checked_count(const json& value, const std::string& place, std::size_t least) const {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() < least || value.get<std::uint64_t>() > kMost) {
    fail(place, fmt::format("a whole number from {} to {}", least, kMost), value);
  }
  return value.get<std::size_t>();
}

std::string RunObject::text(const std::string& key) {
  return checked_text(at(key), place(key));
}

std::string RunObject::text_or(const std::string& key, std::string fallback) {
  return has(key) ? text(key) : std::move(fallback);
}

std::vector<std::string> RunObject::texts_or_none(const std::string& key) {
  if (!has(key)) return {};
  const json& value = at(key);
  if (!value.is_array()) return {checked_text(value, place(key))};
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < value.size(); ++i) {
    texts.push_back(checked_text(value[i], fmt::format("{}[{}]", place(key), i)));
  }
  return texts;
}

std::size_t RunObject::count(const std::string& key, std::size_t least) {
  return checked_count(at(key), place(key), least);
}

std::optional<std::size_t> RunObject::count_if_there(const std::string& key, std::size_t least) {
  if (!has(key)) return std::nullopt;
  return count(key, least);
}

bool RunObject::flag(const std::string& key) {
  if (!has(key)) return false;
  if (!at(key).is_boolean()) fail(place(key), "true or false", at(key));
  return at(key).get<bool>();
}

std::vector<std::size_t> RunObject::counts(const std::string& key, std::size_t least) {
  const json& value = at(key);
  if (!value.is_array() || value.empty()) fail(place(key), "an array of whole numbers", value);
  std::vector<std::size_t> result;
  for (std::size_t i = 0; i < value.size(); ++i) {
    result.push_back(checked_count(value[i], fmt::format("{}[{}]", place(key), i), least));
  }
  if (!ascends(result)) fail(place(key), "numbers that ascend", value.dump());
  return result;
}

std::vector<double> RunObject::checked_shares(const json& value, const std::string& place) const {
  if (!value.is_array() || value.empty()) fail(place, "an array of numbers from 0 to 1", value);
  std::vector<double> result;
  for (std::size_t i = 0; i < value.size(); ++i) {
    const bool inside = value[i].is_number() && value[i].get<double>() >= 0 && value[i].get<double>() <= 1;
    if (!inside) fail(fmt::format("{}[{}]", place, i), "a number from 0 to 1", value[i]);
    result.push_back(value[i].get<double>());
  }
  if (!ascends(result)) fail(place, "numbers that ascend", value.dump());
  return result;
}

std::vector<double> RunObject::shares(const std::string& key) {
  return checked_shares(at(key), place(key));
}

std::string RunObject::name(const std::string& key) {
  return checked_name(text(key), place(key));
}

void RunObject::finish() const {
  for (const auto& [key, value] : value_.items()) {
    if (std::find(asked_.begin(), asked_.end(), key) != asked_.end()) continue;
    std::vector<std::string> known = asked_;
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    input_error("{}: {}unknown key {}; expected one of {}", file_.string(), where_.empty() ? "" : where_ + ": ",
                shown(key), fmt::join(known, ", "));
  }
}

}  // namespace memlane
