#include "memory/document_choice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "kernels/error.h"

namespace memlane {

namespace {

constexpr std::size_t kMostListed = 8;

class Choice {
 public:
  Choice(const MemoryFile& file, std::string_view option) : file_(file), option_(option) {}

  void add(std::string_view word) {
    if (const std::vector<std::uint32_t> whole = named(word); !whole.empty()) return take(word, whole);
    if (word.find(',') == std::string_view::npos) refuse_unknown(word);
    while (true) {
      const std::string_view part = word.substr(0, word.find(','));
      const std::vector<std::uint32_t> found = named(part);
      if (found.empty()) refuse_unknown(part);
      take(part, found);
      if (part.size() == word.size()) return;
      word.remove_prefix(part.size() + 1);
    }
  }

  std::vector<std::uint32_t> finish() && {
    std::sort(ids_.begin(), ids_.end());
    ids_.erase(std::unique(ids_.begin(), ids_.end()), ids_.end());
    return std::move(ids_);
  }

 private:
  std::optional<std::uint32_t> with_id(std::string_view text) const {
    std::uint32_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    const bool is_id = error == std::errc() && end == text.data() + text.size() && id < file_.documents().size();
    if (!is_id || file_.documents()[id].dropped) return std::nullopt;
    return id;
  }

  /// Every document that a word may mean.
  std::vector<std::uint32_t> named(std::string_view word) const {
    std::vector<std::uint32_t> found;
    const auto add_names = [&](std::string_view name) {
      for (const StoredDocument& document : file_.documents()) {
        if (!document.dropped && document.info.name == name) found.push_back(document.info.id);
      }
    };
    const auto add_id = [&](std::string_view text) {
      const auto id = with_id(text);
      if (id && std::find(found.begin(), found.end(), *id) == found.end()) found.push_back(*id);
    };
    add_names(word);
    add_id(word);
    if (!found.empty()) return found;
    if (word.starts_with("name:")) add_names(word.substr(5));
    if (word.starts_with("id:")) add_id(word.substr(3));
    return found;
  }

  void take(std::string_view word, const std::vector<std::uint32_t>& found) {
    if (found.size() > 1) {
      input_error(
          "{} {}: expected one document, found that {} has several of this name or id: {}; say which with id:{}",
          option_, word, file_.path().string(), fmt::join(found, ", "), found.front());
    }
    ids_.push_back(found.front());
  }

  [[noreturn]] void refuse_unknown(std::string_view word) const {
    input_error("{} {}: expected the name or id of a document in {}, found none; it has {}", option_,
                word.empty() ? "''" : word, file_.path().string(), list_of_documents(file_));
  }

  const MemoryFile& file_;
  std::string_view option_;
  std::vector<std::uint32_t> ids_;
};

}  // namespace

std::vector<std::uint32_t> choose_documents(const MemoryFile& file, std::string_view option,
                                            std::span<const std::string> words) {
  Choice choice(file, option);
  for (const std::string& word : words) choice.add(word);
  return std::move(choice).finish();
}

std::string list_of_documents(const MemoryFile& file) {
  std::vector<std::string> listed;
  std::size_t more = 0;
  for (const StoredDocument& document : file.documents()) {
    if (document.dropped) continue;
    if (listed.size() < kMostListed) {
      listed.push_back(fmt::format("{} '{}'", document.info.id, document.info.name));
    } else {
      ++more;
    }
  }
  if (listed.empty()) return "no documents";
  return fmt::format("{}{}", fmt::join(listed, ", "), more > 0 ? fmt::format(" and {} more", more) : "");
}

}  // namespace memlane
