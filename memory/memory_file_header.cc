#include "memory/memory_file_header.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "kernels/error.h"
#include "memory/memory_file_format.h"

namespace memlane {

namespace {

using Json = nlohmann::json;

// Far above any model; small enough that no product of them overflows before it is compared with kLargestSegment.
constexpr std::size_t kMostLayers = 4096;
constexpr int kLargestLayer = 65535;
constexpr std::size_t kMostHeads = 65536;
constexpr std::size_t kLargestHeadDim = 65536;
constexpr std::size_t kLargestWindow = std::size_t{1} << 30;
constexpr std::size_t kLargestTopK = std::size_t{1} << 30;
constexpr std::size_t kLongestText = 1024;
constexpr std::size_t kMostSettings = 8;
constexpr double kLargestSegment = 0x1p46;  // bytes

std::optional<DType> dtype_named(std::string_view name) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    if (name == name_of(dtype)) return dtype;
  }
  return std::nullopt;
}

/// Takes the values of a header out of its JSON one by one, so that what is left over is unknown.
class HeaderFields {
 public:
  HeaderFields(std::string_view text, const std::filesystem::path& path)
      : path_(path), object_(Json::parse(text, nullptr, /*allow_exceptions=*/false)) {
    if (!object_.is_object()) format::damaged(path_, "its header is not a JSON object");
  }

  Json take(const char* key, bool (Json::*has_type)() const noexcept, const char* type) {
    const auto found = object_.find(key);
    if (found == object_.end()) format::damaged(path_, fmt::format("its header lacks \"{}\"", key));
    if (!((*found).*has_type)()) format::damaged(path_, fmt::format("\"{}\" in its header is not {}", key, type));
    Json value = std::move(*found);
    object_.erase(found);
    return value;
  }
  std::string text(const char* key) { return take(key, &Json::is_string, "text").get<std::string>(); }
  std::size_t number(const char* key) {
    return take(key, &Json::is_number_unsigned, "a whole number").get<std::size_t>();
  }
  bool flag(const char* key) { return take(key, &Json::is_boolean, "true or false").get<bool>(); }

  std::vector<int> layers(const char* key) {
    std::vector<int> result;
    for (const Json& layer : take(key, &Json::is_array, "a list")) {
      if (!layer.is_number_unsigned() || layer.get<std::uint64_t>() > kLargestLayer) {
        format::damaged(path_, fmt::format("\"{}\" in its header holds something that is not a layer", key));
      }
      result.push_back(layer.get<int>());
    }
    return result;
  }

  std::map<std::string, std::string> texts(const char* key) {
    std::map<std::string, std::string> result;
    const Json object = take(key, &Json::is_object, "an object");
    for (const auto& [name, value] : object.items()) {
      if (!value.is_string()) format::damaged(path_, fmt::format("\"{}\" in its header is not text", name));
      result.emplace(name, value.get<std::string>());
    }
    return result;
  }

  void expect_no_more() const {
    if (object_.empty()) return;
    input_error("{}: its header holds \"{}\", which this memlane does not know; use the memlane that wrote it",
                path_.string(), object_.begin().key());
  }

 private:
  const std::filesystem::path& path_;
  Json object_;
};

bool is_hex(std::string_view text) {
  return text.size() <= 128 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// What is wrong with a shape and window; empty if nothing is.
std::string shape_fault(const EntryShape& shape, std::size_t window) {
  const auto& layers = shape.layers;
  if (layers.empty() || layers.size() > kMostLayers) {
    return fmt::format("{} memory layers, expected 1 to {}", layers.size(), kMostLayers);
  }
  const bool ascending = std::adjacent_find(layers.begin(), layers.end(), std::greater_equal<>()) == layers.end();
  if (!ascending || layers.front() < 0 || layers.back() > kLargestLayer) {
    return fmt::format("memory layers {}, expected ascending ones from 0 to {}", fmt::join(layers, ","), kLargestLayer);
  }
  if (shape.kv_heads == 0 || shape.kv_heads > kMostHeads) {
    return fmt::format("{} key/value heads, expected 1 to {}", shape.kv_heads, kMostHeads);
  }
  if (shape.head_dim == 0 || shape.head_dim > kLargestHeadDim) {
    return fmt::format("head_dim {}, expected 1 to {}", shape.head_dim, kLargestHeadDim);
  }
  if (window == 0 || window > kLargestWindow) {
    return fmt::format("a window of {} tokens, expected 1 to {}", window, kLargestWindow);
  }
  // In floating point, because the product of the largest ones overflows 64 bits. 128: padding of up to 64 bytes for
  // keys and values.
  const double heads = static_cast<double>(layers.size()) * static_cast<double>(shape.kv_heads);
  const double rows = 2.0 * static_cast<double>(window + kPanelEntries);
  const double bytes = heads * (rows * static_cast<double>((shape.head_dim + 1) * size_of(shape.dtype)) + 128.0);
  if (bytes > kLargestSegment)
    return fmt::format("windows of {:.3g} bytes, expected at most {:.3g}", bytes, kLargestSegment);
  return {};
}

std::string header_fault(const MemoryFileHeader& header) {
  if (header.model_fingerprint.empty() || !is_hex(header.model_fingerprint) || !is_hex(header.tokenizer_fingerprint)) {
    return "a fingerprint that is not hexadecimal digits";
  }
  if (std::string fault = shape_fault(header.shape, header.window); !fault.empty()) return fault;
  if (header.compute != "float32" && header.compute != "bfloat16") {
    return fmt::format("compute \"{}\", expected float32 or bfloat16", header.compute);
  }
  if (header.lookup.empty() || header.lookup.size() > kLongestText)
    return "a lookup without a name, or one that is too long";
  if (header.top_k > kLargestTopK) return fmt::format("top_k {}, expected at most {}", header.top_k, kLargestTopK);
  if ((header.lookup == "dense") != (header.top_k == 0)) {
    return fmt::format("top_k {} with lookup \"{}\"; dense goes with 0, others with 1 or more", header.top_k,
                       header.lookup);
  }
  if (header.settings.size() > kMostSettings) return "too many settings";
  for (const auto& [name, value] : header.settings) {
    if (name.empty() || name.size() > kLongestText || value.size() > kLongestText) return "a setting that is too long";
  }
  return {};
}

}  // namespace

namespace format {

std::string header_to_json(const MemoryFileHeader& header) {
  const Json json = {{"model_fingerprint", header.model_fingerprint},
                     {"tokenizer_fingerprint", header.tokenizer_fingerprint},
                     {"model_name", header.model_name.substr(0, kLongestText)},
                     {"memory_layers", header.shape.layers},
                     {"kv_heads", header.shape.kv_heads},
                     {"head_dim", header.shape.head_dim},
                     {"dtype", name_of(header.shape.dtype)},
                     {"window", header.window},
                     {"mem_positionals", header.mem_positionals},
                     {"compute", header.compute},
                     {"lookup", header.lookup},
                     {"top_k", header.top_k},
                     {"settings", Json(header.settings)}};
  return json.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

MemoryFileHeader header_from_json(std::string_view json, const std::filesystem::path& path) {
  HeaderFields fields(json, path);
  MemoryFileHeader header;
  header.model_fingerprint = fields.text("model_fingerprint");
  header.tokenizer_fingerprint = fields.text("tokenizer_fingerprint");
  header.model_name = fields.text("model_name");
  header.shape.layers = fields.layers("memory_layers");
  header.shape.kv_heads = fields.number("kv_heads");
  header.shape.head_dim = fields.number("head_dim");
  const std::string dtype = fields.text("dtype");
  if (!dtype_named(dtype)) damaged(path, fmt::format("its entries are of unknown type \"{}\"", dtype));
  header.shape.dtype = *dtype_named(dtype);
  header.window = fields.number("window");
  header.mem_positionals = fields.flag("mem_positionals");
  header.compute = fields.text("compute");
  header.lookup = fields.text("lookup");
  header.top_k = fields.number("top_k");
  header.settings = fields.texts("settings");
  fields.expect_no_more();
  return header;
}

void check_header(const MemoryFileHeader& header, const std::filesystem::path& path) {
  if (const std::string fault = header_fault(header); !fault.empty()) {
    input_error("{}: a memory file cannot have {}", path.string(), fault);
  }
}

}  // namespace format

std::string differences(const MemoryFileHeader& file, const MemoryFileHeader& asked_for) {
  std::vector<std::string> found;
  const auto compare = [&](std::string_view what, const auto& stored, const auto& asked) {
    if (stored == asked) return;
    found.push_back(found.empty() ? fmt::format("{} {} in the file, {} asked for", what, stored, asked)
                                  : fmt::format("{} {}, {} asked for", what, stored, asked));
  };
  const auto text = [](const std::string& value) { return value.empty() ? std::string("none") : value; };
  const auto list = [](const std::vector<int>& layers) { return fmt::format("{}", fmt::join(layers, ",")); };
  if (file.model_fingerprint != asked_for.model_fingerprint) {
    const auto model = [](const MemoryFileHeader& header) {
      return fmt::format("{} ({})", header.model_name, header.model_fingerprint);
    };
    compare("model", model(file), model(asked_for));
  }
  compare("tokenizer", text(file.tokenizer_fingerprint), text(asked_for.tokenizer_fingerprint));
  compare("memory layers", list(file.shape.layers), list(asked_for.shape.layers));
  compare("key/value heads", file.shape.kv_heads, asked_for.shape.kv_heads);
  compare("head_dim", file.shape.head_dim, asked_for.shape.head_dim);
  compare("type of entries", name_of(file.shape.dtype), name_of(asked_for.shape.dtype));
  compare("window", file.window, asked_for.window);
  compare("mem_positionals", file.mem_positionals, asked_for.mem_positionals);
  compare("compute", file.compute, asked_for.compute);
  compare("lookup", file.lookup, asked_for.lookup);
  compare("top_k", file.top_k, asked_for.top_k);
  auto names = file.settings;
  names.insert(asked_for.settings.begin(), asked_for.settings.end());
  const auto value = [&](const MemoryFileHeader& header, const std::string& name) {
    const auto at = header.settings.find(name);
    if (name == "weights" && at == header.settings.end()) return header.compute;  // which is what leaves it out
    return at == header.settings.end() ? std::string("none") : at->second;
  };
  for (const auto& [name, unused] : names) compare(name, value(file, name), value(asked_for, name));
  return fmt::format("{}", fmt::join(found, "; "));
}

}  // namespace memlane
