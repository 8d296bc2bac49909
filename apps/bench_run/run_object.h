#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace memlane {

/// Reads one object of a run file key by key. Every failure is an InputError that names the file, the place in it, what
/// was expected and what was found.
class RunObject {
 public:
  /// where: the object's place in the file, such as "experiments[2]"; empty for the whole file.
  RunObject(const nlohmann::json& value, std::filesystem::path file, std::string where);

  const std::string& where() const { return where_; }
  bool has(const std::string& key);
  /// The value of a key that must be there.
  const nlohmann::json& at(const std::string& key);

  /// Printable text in one line.
  std::string text(const std::string& key);
  std::string text_or(const std::string& key, std::string fallback);
  /// One string, or several in an array.
  std::vector<std::string> texts_or_none(const std::string& key);
  std::size_t count(const std::string& key, std::size_t least);
  std::optional<std::size_t> count_if_there(const std::string& key, std::size_t least);
  /// true or false; false if it is not there.
  bool flag(const std::string& key);
  /// Whole numbers, ascending, each once, at least one.
  std::vector<std::size_t> counts(const std::string& key, std::size_t least);
  /// Numbers from 0 to 1, ascending, each once, at least one.
  std::vector<double> shares(const std::string& key);
  std::vector<double> checked_shares(const nlohmann::json& value, const std::string& place) const;
  /// A name of files: letters, digits, - and _.
  std::string name(const std::string& key);

  /// Throws if the object has a key that nobody asked for.
  void finish() const;

  [[noreturn]] void fail(const std::string& place, const std::string& expected, const nlohmann::json& found) const;
  std::string place(const std::string& key) const { return where_.empty() ? key : where_ + "." + key; }
  const std::filesystem::path& file() const { return file_; }

  std::string checked_text(const nlohmann::json& value, const std::string& place) const;
  std::string checked_name(const std::string& text, const std::string& place) const;
  std::size_t checked_count(const nlohmann::json& value, const std::string& place, std::size_t least) const;

 private:
  const nlohmann::json& value_;
  std::filesystem::path file_;
  std::string where_;
  std::vector<std::string> asked_;
};

}  // namespace memlane
