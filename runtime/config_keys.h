#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace memlane {

/// One JSON object of a model's config; every getter either returns a checked value or throws an InputError that names
/// file and key.
class ConfigKeys {
 public:
  /// object, file: must outlive this. prefix: of the key in messages, such as "rope_scaling.".
  ConfigKeys(const nlohmann::json& object, const std::filesystem::path& file, std::string prefix = "")
      : object_(object), file_(file), prefix_(std::move(prefix)) {}

  /// Null if the key is absent.
  const nlohmann::json* find(std::string_view key) const;
  bool absent_or_null(std::string_view key) const;

  [[noreturn]] void refuse(std::string_view key, std::string_view expected, std::string_view advice = "") const;

  std::size_t size(std::string_view key, std::size_t fallback, std::size_t max) const;
  /// As size(), where null means the same as an absent key.
  std::size_t size_or_null(std::string_view key, std::size_t fallback, std::size_t max) const;
  /// `value` is that of `key`, or an element of it.
  std::size_t integer(std::string_view key, const nlohmann::json& value, std::size_t min, std::size_t max) const;
  double positive(std::string_view key, double fallback, double max) const;
  /// A number from least to most; null means the same as an absent key.
  double number_or_null(std::string_view key, double fallback, double least, double most) const;
  bool boolean(std::string_view key, bool fallback) const;
  std::string text(std::string_view key, std::string_view fallback, std::string_view expected) const;

  const nlohmann::json& object() const { return object_; }
  const std::filesystem::path& file() const { return file_; }
  const std::string& prefix() const { return prefix_; }

 private:
  const nlohmann::json& object_;
  const std::filesystem::path& file_;
  std::string prefix_;
};

}  // namespace memlane
