#include "runtime/safetensors.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "kernels/error.h"
#include "runtime/strict_json.h"

namespace memlane {

namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr std::size_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = std::uint64_t{100} << 20;
constexpr std::size_t kMaxRank = 16;

struct ElementSize {
  std::string_view dtype;
  std::size_t bytes;
};

constexpr std::array kElementSizes = {
    ElementSize{"F64", 8}, ElementSize{"F32", 4},  ElementSize{"F16", 2},     ElementSize{"BF16", 2},
    ElementSize{"I64", 8}, ElementSize{"I32", 4},  ElementSize{"I16", 2},     ElementSize{"I8", 1},
    ElementSize{"U64", 8}, ElementSize{"U32", 4},  ElementSize{"U16", 2},     ElementSize{"U8", 1},
    ElementSize{"C64", 8}, ElementSize{"BOOL", 1}, ElementSize{"F8_E4M3", 1}, ElementSize{"F8_E5M2", 1},
};

/// Nothing for a type of a later version of the format; such a tensor is only refused when it is asked for.
std::optional<std::size_t> element_size(std::string_view dtype) {
  const auto found = std::find_if(kElementSizes.begin(), kElementSizes.end(),
                                  [&](const ElementSize& element) { return element.dtype == dtype; });
  if (found == kElementSizes.end()) return std::nullopt;
  return found->bytes;
}

/// Turns one entry of the header into a tensor.
class EntryReader {
 public:
  EntryReader(const std::filesystem::path& path, std::span<const std::byte> data, const std::string& name,
              const json& entry)
      : path_(path), data_(data), name_(name), entry_(entry) {
    if (!entry.is_object()) refuse("expected an object with dtype, shape and data_offsets", describe(entry));
  }

  StoredTensor read() const {
    StoredTensor tensor{name_, dtype(), numbers("shape"), {}};
    const std::vector<std::size_t> offsets = numbers("data_offsets");
    if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_.size()) {
      refuse("expected data_offsets [begin, end] in order and within the " + std::to_string(data_.size()) +
                 " bytes of data that the file has",
             shape_text(offsets) + " (is the file truncated?)");
    }
    tensor.bytes = data_.subspan(offsets[0], offsets[1] - offsets[0]);
    check_size(tensor);
    return tensor;
  }

 private:
  [[noreturn]] void refuse(std::string_view expected, std::string_view found) const {
    input_error("{}: tensor {}: {}, found {}; download the file again", path_.string(), shown(name_), expected, found);
  }

  const json& member(const char* key) const {
    const auto found = entry_.find(key);
    if (found == entry_.end()) refuse(fmt::format("expected a key {}", key), "none");
    return *found;
  }

  std::string dtype() const {
    const json& value = member("dtype");
    if (!value.is_string()) refuse("expected dtype to be the name of a type", describe(value));
    return value.get<std::string>();
  }

  std::vector<std::size_t> numbers(const char* key) const {
    const json& list = member(key);
    if (!list.is_array()) refuse(fmt::format("expected {} to be a list of sizes", key), describe(list));
    if (list.size() > kMaxRank)
      refuse(fmt::format("expected {} to hold at most {} sizes", key, kMaxRank), std::to_string(list.size()));
    std::vector<std::size_t> result;
    result.reserve(list.size());
    for (const json& number : list) {
      if (!number.is_number_unsigned()) {
        refuse(fmt::format("expected {} to hold integers that are not negative", key), describe(number));
      }
      result.push_back(number.get<std::size_t>());
    }
    return result;
  }

  void check_size(const StoredTensor& tensor) const {
    const std::optional<std::size_t> element = element_size(tensor.dtype);
    if (!element.has_value()) return;
    std::size_t bytes = *element;
    bool fits = true;
    for (const std::size_t extent : tensor.shape) {
      if (extent == 0) {
        bytes = 0;
        fits = true;
        break;
      }
      fits = fits && !__builtin_mul_overflow(bytes, extent, &bytes);
    }
    if (fits && bytes == tensor.bytes.size()) return;
    refuse(fmt::format("expected {} for shape {} of {}",
                       fits ? std::to_string(bytes) + " bytes" : "a size that fits 64 bits", shape_text(tensor.shape),
                       shown(tensor.dtype)),
           std::to_string(tensor.bytes.size()) + " bytes between its data_offsets");
  }

  const std::filesystem::path& path_;
  std::span<const std::byte> data_;
  const std::string& name_;
  const json& entry_;
};

/// The format allows neither shared bytes nor unused ones, so the tensors in order of their offsets must be the data
/// exactly.
void check_layout(const std::filesystem::path& path, std::span<const std::byte> data,
                  const std::map<std::string, StoredTensor, std::less<>>& tensors) {
  std::vector<const StoredTensor*> in_order;
  in_order.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) in_order.push_back(&tensor);
  std::sort(in_order.begin(), in_order.end(), [](const StoredTensor* a, const StoredTensor* b) {
    return std::pair(a->bytes.data(), a->bytes.size()) < std::pair(b->bytes.data(), b->bytes.size());
  });
  const std::byte* end = data.data();
  for (const StoredTensor* tensor : in_order) {
    if (tensor->bytes.data() != end) {
      input_error(
          "{}: tensor {}: expected its data to begin where the tensor before it ends, at byte {}, found byte {}; "
          "download the file again",
          path.string(), shown(tensor->name), end - data.data(), tensor->bytes.data() - data.data());
    }
    end += tensor->bytes.size();
  }
  const std::size_t used = static_cast<std::size_t>(end - data.data());
  if (used != data.size()) {
    input_error("{}: expected {} bytes of data as its header says, found {}; download the file again", path.string(),
                used, data.size());
  }
}

template <class T>
constexpr std::string_view stored_name() {
  return std::is_same_v<T, float> ? "F32" : "I32";
}

std::string output_header(const std::filesystem::path& path, std::span<const OutputTensor> tensors) {
  json header = json::object();
  std::size_t offset = 0;
  for (const OutputTensor& tensor : tensors) {
    std::size_t count = 1;
    for (const std::size_t extent : tensor.shape) count *= extent;
    std::visit(
        [&](auto values) {
          MEMLANE_EXPECTS(values.size() == count);
          MEMLANE_EXPECTS(!header.contains(tensor.name));
          using T = std::remove_const_t<typename decltype(values)::element_type>;
          header[tensor.name] = {{"dtype", stored_name<T>()},
                                 {"shape", tensor.shape},
                                 {"data_offsets", {offset, offset + values.size_bytes()}}};
          offset += values.size_bytes();
        },
        tensor.values);
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data begins aligned
  if (text.size() > kMaxHeaderBytes) input_error("{}: too many tensors for one safetensors file", path.string());
  return text;
}

/// A file under a temporary name beside `path` until commit(); gone if that is never reached.
class NewFile {
 public:
  explicit NewFile(const std::filesystem::path& path) : path_(path) {
    std::error_code ignored;
    if (std::filesystem::exists(path, ignored) && !std::filesystem::is_regular_file(path, ignored)) {
      input_error("{}: cannot write it: it exists and is not a regular file", path.string());
    }
    for (int attempt = 0; fd_ < 0; ++attempt) {
      temporary_ = fmt::format("{}.{}-{}.tmp", path.string(), ::getpid(), attempt);
      fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd_ < 0 && errno != EEXIST) fail();
    }
  }
  ~NewFile() {
    if (fd_ < 0) return;
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ::ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail();
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }

  void commit() {
    if (::fsync(fd_) != 0) fail();
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail();
    ::close(std::exchange(fd_, -1));
  }

 private:
  [[noreturn]] void fail() {
    const int error = errno;
    if (fd_ >= 0) {
      ::close(std::exchange(fd_, -1));
      ::unlink(temporary_.c_str());
    }
    input_error("{}: cannot write it: {}; nothing was left behind", path_.string(), std::strerror(error));
  }

  std::filesystem::path path_;
  std::string temporary_;
  int fd_ = -1;
};

}  // namespace

std::string shape_text(std::span<const std::size_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path, "safetensors file") {
  const std::span<const std::byte> bytes = file_.bytes();
  if (bytes.size() < kLengthBytes) {
    input_error("{}: expected a safetensors file, found only {} bytes; download the file again", path.string(),
                bytes.size());
  }
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kMaxHeaderBytes || length > bytes.size() - kLengthBytes) {
    input_error(
        "{}: expected a safetensors header of at most {} bytes, found one of {}; the file is truncated or of another "
        "kind, download it again",
        path.string(), std::min<std::uint64_t>(kMaxHeaderBytes, bytes.size() - kLengthBytes), length);
  }
  const json header = parse_json_object(file_.text().substr(kLengthBytes, length), path);
  const std::span<const std::byte> data = bytes.subspan(kLengthBytes + length);
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") tensors_.emplace(name, EntryReader(path, data, name, entry).read());
  }
  check_layout(path, data, tensors_);
}

const StoredTensor* SafetensorsFile::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

const StoredTensor& SafetensorsFile::tensor(std::string_view name) const {
  const StoredTensor* found = find(name);
  if (found == nullptr) input_error("{}: expected a tensor {}, found none of that name", path().string(), shown(name));
  return *found;
}

template <class T>
std::vector<T> SafetensorsFile::elements(std::string_view name, std::string_view dtype) const {
  const StoredTensor& stored = tensor(name);
  if (stored.dtype != dtype) {
    input_error("{}: tensor {}: expected dtype {}, found {}", path().string(), shown(name), dtype, shown(stored.dtype));
  }
  std::vector<T> values(stored.bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), stored.bytes.data(), stored.bytes.size());
  return values;
}

std::vector<float> SafetensorsFile::floats(std::string_view name) const {
  return elements<float>(name, "F32");
}

std::vector<std::int32_t> SafetensorsFile::integers(std::string_view name) const {
  return elements<std::int32_t>(name, "I32");
}

void write_safetensors(const std::filesystem::path& path, std::span<const OutputTensor> tensors) {
  const std::string header = output_header(path, tensors);
  const std::uint64_t length = header.size();
  NewFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(std::as_bytes(std::span(header)));
  for (const OutputTensor& tensor : tensors) {
    std::visit([&](auto values) { file.write(std::as_bytes(values)); }, tensor.values);
  }
  file.commit();
}

}  // namespace memlane
