#include "runtime/strict_json.h"

#include <algorithm>
#include <set>
#include <vector>

#include "kernels/error.h"
#include "memory/mapped_file.h"

namespace memlane {

namespace {

using nlohmann::json;

constexpr std::size_t kMaxFileBytes = std::size_t{16} << 20;
constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxShown = 64;

std::string shortened(std::string text) {
  if (text.size() > kMaxShown) text = text.substr(0, kMaxShown) + "...";
  return text;
}

/// Sees every event of the parser and refuses what the parser itself would let pass.
class StrictChecks {
 public:
  explicit StrictChecks(const std::filesystem::path& file) : file_(file) {}

  void see(int depth, json::parse_event_t event, const json& parsed) {
    if (depth > kMaxDepth) {
      input_error("{}: JSON nested deeper than {} levels; this is not a file of a model, download it again",
                  file_.string(), kMaxDepth);
    }
    if (event == json::parse_event_t::object_start) {
      keys_.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      keys_.pop_back();
    } else if (event == json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys_.back().insert(key).second) {
        input_error("{}: key {} appears twice in one object; remove one of them", file_.string(), shown(key));
      }
    }
  }

 private:
  const std::filesystem::path& file_;
  std::vector<std::set<std::string>> keys_;
};

}  // namespace

json parse_json_object(std::string_view text, const std::filesystem::path& file, std::string_view advice) {
  StrictChecks checks(file);
  json root;
  try {
    root = json::parse(text.begin(), text.end(), [&](int depth, json::parse_event_t event, json& parsed) {
      checks.see(depth, event, parsed);
      return true;
    });
  } catch (const json::parse_error& error) {
    // Bytes are counted from 1 there; an end that comes too soon is one past the last.
    input_error("{}: expected JSON, found {} at byte {} of {}; {}", file.string(),
                error.byte > text.size() ? "its end too soon" : "something else", std::min(error.byte, text.size()),
                text.size(), advice);
  } catch (const json::exception& error) {
    input_error("{}: JSON holds a value outside every range ({}); correct the file or download it again", file.string(),
                shown(error.what()));
  }
  if (!root.is_object()) {
    input_error("{}: expected a JSON object {{...}}, found {}; {}", file.string(), describe(root), advice);
  }
  return root;
}

json read_json_object(const std::filesystem::path& file, std::string_view what, std::string_view advice) {
  const MappedFile mapped(file, what);
  if (mapped.bytes().size() > kMaxFileBytes) {
    input_error("{}: expected the {} to be at most {} bytes, found {}; this is another kind of file", file.string(),
                what, kMaxFileBytes, mapped.bytes().size());
  }
  return parse_json_object(mapped.text(), file, advice);
}

std::string describe(const json& value) {
  switch (value.type()) {
    case json::value_t::object:
      return value.empty() ? "an empty object" : "an object";
    case json::value_t::array:
      return value.empty() ? "an empty array" : "an array";
    case json::value_t::string:
      return shown(value.get_ref<const std::string&>());
    default:
      return shortened(value.dump());
  }
}

std::string shown(std::string_view text) {
  // Cut before escaping too: the text may be megabytes long.
  const json value = std::string(text.substr(0, kMaxShown + 1));
  return shortened(value.dump(-1, ' ', true, json::error_handler_t::replace));
}

}  // namespace memlane
