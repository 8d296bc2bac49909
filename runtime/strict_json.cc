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
// A value takes up to a hundred times the bytes of its text, so the text's length alone bounds nothing. The headers and
// indexes of the largest models have a tenth of it.
constexpr std::size_t kMostValues = std::size_t{1} << 20;
constexpr std::size_t kMaxShown = 64;

std::string shortened(std::string text) {
  if (text.size() > kMaxShown) text = text.substr(0, kMaxShown) + "...";
  return text;
}

/// Reads JSON without keeping it, and refuses what the parser itself would let pass. Not a callback of the parser: with
/// one it looks through all of an object's values at the end of each of them.
class StrictChecks : public nlohmann::json_sax<json> {
 public:
  explicit StrictChecks(const std::filesystem::path& file) : file_(file) {}

  bool null() override { return see_value(); }
  bool boolean(bool) override { return see_value(); }
  bool number_integer(number_integer_t) override { return see_value(); }
  bool number_unsigned(number_unsigned_t) override { return see_value(); }
  bool number_float(number_float_t, const string_t&) override { return see_value(); }
  bool string(string_t&) override { return see_value(); }
  bool binary(binary_t&) override { return see_value(); }
  bool start_object(std::size_t) override {
    enter();
    keys_.emplace_back();
    return true;
  }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) {
      input_error("{}: key {} appears twice in one object; remove one of them", file_.string(), shown(name));
    }
    return see_value();
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    enter();
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  /// The parser will say it again.
  bool parse_error(std::size_t, const std::string&, const json::exception&) override { return false; }

 private:
  void enter() {
    see_value();
    if (++depth_ > kMaxDepth) {
      input_error("{}: JSON nested deeper than {} levels; this is not a file of a model, download it again",
                  file_.string(), kMaxDepth);
    }
  }
  bool see_value() {
    if (++values_ > kMostValues) {
      input_error("{}: expected JSON of at most {} keys and values, found more; this is not a file of a model",
                  file_.string(), kMostValues);
    }
    return true;
  }

  const std::filesystem::path& file_;
  std::vector<std::set<std::string>> keys_;
  int depth_ = 0;
  std::size_t values_ = 0;
};

}  // namespace

json parse_json_object(std::string_view text, const std::filesystem::path& file, std::string_view advice) {
  StrictChecks checks(file);
  json root;
  try {
    json::sax_parse(text.begin(), text.end(), &checks);
    root = json::parse(text.begin(), text.end());
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
