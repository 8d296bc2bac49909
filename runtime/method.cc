#include "runtime/method.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <vector>

#include "kernels/error.h"
#include "runtime/local_settings.h"
#include "runtime/rope_scaling.h"

namespace memlane {

namespace {

constexpr std::size_t kLongWindow = 4096;  // of a scaled model with memory, unless said
constexpr std::size_t kMostTokens = std::size_t{1} << 24;
constexpr std::array<std::string_view, 6> kScalingsWithoutLength = {
    "linear", "ntk-aware", "ntk-by-parts", "ntk-by-parts-paper", "yarn", "llama3"};
constexpr std::array<std::string_view, 5> kOtherScalings = {"dynamic-ntk", "dynamic-linear", "dynamic-yarn", "longrope",
                                                            "base"};
constexpr std::array<std::string_view, 9> kOwnKeys = {
    "window", "memory-window", "memory-rope", "overlap", "last-context", "sliding", "sinks", "distance", "mode"};
constexpr std::size_t kSinks = 4;  // of a sliding window, unless said (Xiao et al. 2023)
constexpr std::array<std::string_view, 4> kModes = {"whole-sequence", "consistent", "inconsistent", "recompute"};
constexpr std::array<std::string_view, 13> kScalingKeys = {
    "theta",  "factor",         "original-length", "attention-factor", "beta-fast",    "beta-slow",  "truncate",
    "mscale", "mscale-all-dim", "low-freq-factor", "high-freq-factor", "short-factor", "long-factor"};

template <std::size_t N>
bool among(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> pieces(1);
  for (const char c : text) {
    if (c == separator) {
      pieces.emplace_back();
    } else {
      pieces.back() += c;
    }
  }
  return pieces;
}

/// As in a list that a comma has cut.
bool is_number(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789.eE-") == std::string::npos;
}

}  // namespace

Method Method::parse(std::string_view text) {
  Method method;
  method.text_ = text;
  const std::vector<std::string> pieces = split(text, ':');
  for (const std::string& part : split(pieces.front(), '+')) method.add_part(part);
  method.family_ = pieces.front();
  for (auto piece = pieces.begin() + 1; piece != pieces.end(); ++piece) {
    const std::size_t equals = piece->find('=');
    const std::string key = piece->substr(0, equals);
    if (equals == std::string::npos || equals == 0 || equals + 1 == piece->size()) {
      input_error("method {}: expected key=value after each ':', found '{}'", text, *piece);
    }
    if (!among(kOwnKeys, key) && !among(kScalingKeys, key)) {
      input_error(
          "method {}: key {}: expected window, memory-window, memory-rope, overlap, last-context, sliding, sinks, "
          "distance, mode or a key of the RoPE scaling such as factor",
          text, key);
    }
    const bool of_scaling = among(kScalingKeys, key);
    if (of_scaling && (method.scaling_.empty() || method.scaling_ == "none")) {
      input_error("method {}: key {}: expected a RoPE scaling that it belongs to, such as yarn:{}; found none", text,
                  key, *piece);
    }
    if (of_scaling) {
      method.scaling_keys_ += ":" + *piece;
    } else if (!method.keys_.emplace(key, piece->substr(equals + 1)).second) {
      input_error("method {}: key {}: expected once, found twice", text, key);
    }
    if (key != "mode") method.family_ += ":" + *piece;
  }
  const auto needs = [&](const char* key, bool part, const char* example) {
    if (method.find(key) == nullptr || part) return;
    input_error("method {}: key {}: expected a method that uses it, such as {}", text, key, example);
  };
  needs("sliding", method.sliding_, "sliding:sliding=2048");
  needs("sinks", method.sliding_, "sliding:sinks=4");
  needs("distance", method.capped_, "capped:distance=1024");
  needs("memory-window", method.memory_, "memory:memory-window=1024");
  needs("last-context", method.memory_, "memory:last-context=512");
  needs("memory-rope", method.memory_, "memory:memory-rope=linear/factor=2");
  const std::string mode = method.mode();
  if (!mode.empty() && !method.scaling_.starts_with("dynamic-") && method.scaling_ != "longrope") {
    input_error("method {}: key mode: expected a dynamic scaling such as dynamic-ntk:mode={}", text, mode);
  }
  if (!mode.empty() && !among(kModes, mode)) {
    input_error("method {}: key mode: expected whole-sequence, consistent, inconsistent or recompute, found '{}'", text,
                mode);
  }
  return method;
}

void Method::add_part(const std::string& part) {
  const bool is_scaling = among(kScalingsWithoutLength, part) || among(kOtherScalings, part) || part == "none";
  bool* const plain = part == "sliding" ? &sliding_ : part == "capped" ? &capped_ : nullptr;
  if (plain != nullptr) {
    *plain = true;
    return;
  }
  if (!is_scaling && part != "memory") {
    input_error(
        "method {}: expected memory, sliding, capped, none, base, linear, ntk-aware, ntk-by-parts, ntk-by-parts-paper, "
        "yarn, dynamic-ntk, dynamic-linear, dynamic-yarn, llama3 or longrope, joined by '+', found '{}'{}",
        text_, part, is_number(part) ? "; numbers of a list within a method are separated by ';'" : "");
  }
  if ((part == "memory" && memory_) || (is_scaling && !scaling_.empty())) {
    input_error("method {}: expected memory once and at most one RoPE scaling, found '{}' as well", text_, part);
  }
  if (part == "memory") {
    memory_ = true;
  } else {
    scaling_ = part;
  }
}

const std::string* Method::find(const std::string& key) const {
  const auto found = keys_.find(key);
  return found == keys_.end() ? nullptr : &found->second;
}

std::string Method::mode() const {
  const std::string* mode = find("mode");
  return mode == nullptr ? "" : *mode;
}

std::size_t Method::count(const std::string& key, std::size_t least, std::size_t most) const {
  const std::string& value = keys_.at(key);
  std::size_t result = 0;
  const auto [stop, error] = std::from_chars(value.data(), value.data() + value.size(), result);
  if (error != std::errc() || stop != value.data() + value.size() || result < least || result > most) {
    input_error("method {}: key {}: expected a whole number from {} to {}, found '{}'", text_, key, least, most, value);
  }
  return result;
}

/// None: the text's length.
std::optional<std::size_t> Method::window(const MemorySettings& base) const {
  const std::string* given = find("window");
  const bool changes_plain_layers = (!scaling_.empty() && scaling_ != "none") || sliding_ || capped_;
  if (given != nullptr && *given == "full") return std::nullopt;
  if (given != nullptr) return count("window", 2, kMostTokens);  // one token has nothing before it
  if (!changes_plain_layers) return base.window;
  return memory_ ? std::optional(kLongWindow) : std::nullopt;
}

/// How layers look at their local context: as the method says, else as `base` does if the window is its own. The
/// dynamic mode is not among it.
MemoryOverrides Method::local_context(const ModelConfig& config, const MemorySettings& base,
                                      const MemorySettings& memory) const {
  const bool same_window = memory.window == base.window;
  MemoryOverrides local;
  const auto take = [&](const char* key, std::size_t least, std::size_t inherited) -> std::optional<std::size_t> {
    if (find(key) != nullptr) return count(key, least, kMostTokens);
    return same_window && inherited > 0 ? std::optional(inherited) : std::nullopt;
  };
  if (memory_) {
    const std::string* given = find("memory-window");
    local.memory_window = given != nullptr && *given == "full" ? std::optional(memory.window)
                                                               : take("memory-window", 1, base.memory_window);
  }
  local.overlap = take("overlap", 0, base.overlap);
  local.sliding_window = take("sliding", 1, base.sliding_window);
  local.sinks = take("sinks", 0, base.sinks);
  local.capped_distance = take("distance", 1, base.capped_distance);
  if (sliding_ && !local.sliding_window) local.sliding_window = std::min(base.window, memory.window);
  if (sliding_ && !local.sinks) local.sinks = std::min(kSinks, *local.sliding_window - 1);
  if (capped_ && !local.capped_distance)
    local.capped_distance = std::max<std::size_t>(config.max_position_embeddings / 2, 1);
  return local;
}

/// How memory layers rotate if the method says it. tokens: of their sub-windows, which a factor has to reach.
RopeScaling Method::memory_rope(const ModelConfig& config, const MemorySettings& memory, std::size_t tokens) const {
  std::string specification = *find("memory-rope");
  std::replace(specification.begin(), specification.end(), '/', ':');
  const std::string source = fmt::format("method {}: memory-rope", text_);
  const RopeScaling scaling =
      specification == "same" ? memory.rope : parse_rope_scaling(source, specification, config.memory_rope, tokens);
  check_rope_scaling(scaling, config.head_dim, source);
  return scaling;
}

MethodSettings Method::settings(const ModelConfig& config, const MemorySettings& base, std::size_t length,
                                std::size_t room) const {
  MEMLANE_EXPECTS(length > 0 && length + room <= kMostTokens);
  MethodSettings result;
  MemorySettings& memory = result.memory;
  memory = base;
  if (!memory_) memory.mem_layers.clear();
  if (memory_ && base.mem_layers.empty()) {
    input_error("method {}: expected a model with memory layers, found none; choose some with --mem-layers", text_);
  }
  const std::optional<std::size_t> own_window = window(base);
  const std::size_t tokens = own_window.value_or(length);  // which a factor has to reach
  memory.window = own_window.value_or(length + room);
  memory.last_context_length = std::min(base.last_context_length, memory.window);
  const std::string source = fmt::format("method {}", text_);
  if (!scaling_.empty() && scaling_ != "none") {
    const std::string specification = scaling_ + scaling_keys_;
    // Its messages name the specification, too: say once what is the same.
    memory.rope =
        parse_rope_scaling(specification == text_ ? "method" : source + ":", specification, config.rope, tokens);
    check_rope_scaling(memory.rope, config.head_dim, source);
  }
  result.recompute = mode() == "recompute";
  if (result.recompute && memory_) {
    input_error("method {}: key mode: expected recompute without memory; what moved there is never read again", text_);
  }
  MemoryOverrides local = local_context(config, base, memory);
  try {
    if (find("memory-rope") != nullptr) {
      const std::size_t sub_window = resolve_memory_window(config, local, memory);
      memory.memory_rope = memory_rope(config, memory, std::min(tokens, sub_window));
    }
    const bool dynamic = depends_on_length(memory.rope) || depends_on_length(memory.memory_rope);
    if (!mode().empty()) {
      local.dynamic_mode = result.recompute ? DynamicMode::whole_sequence : dynamic_mode_named("mode", mode());
    } else if (dynamic) {
      local.dynamic_mode = base.dynamic_mode;
    }
    resolve_local_settings(config, local, memory);
  } catch (const InputError& error) {
    if (std::string_view(error.what()).starts_with(source)) throw;
    input_error("{}: {}", source, error.what());
  }
  if (find("last-context") != nullptr) result.last_context = count("last-context", 0, memory.window - 1);
  return result;
}

}  // namespace memlane
