#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "memory/mapped_file.h"

namespace memlane {

/// A tensor as a safetensors file has it.
struct StoredTensor {
  std::string name;
  std::string dtype;                 // the file's name for it: "F32", "F16", "BF16", "I32", ...
  std::vector<std::size_t> shape;    // empty for a scalar
  std::span<const std::byte> bytes;  // row-major, in the mapped file; need not be aligned to the element size
};

/// "[2, 3]": a shape for a message.
std::string shape_text(std::span<const std::size_t> shape);

/// One safetensors file, mapped. Everything in its header is checked before use; spans stay valid while it lives, moved
/// or not.
class SafetensorsFile {
 public:
  /// Throws InputError, naming file and tensor, if the file is missing, truncated or not well formed.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  /// By name.
  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }
  /// Null if there is none of that name.
  const StoredTensor* find(std::string_view name) const;
  /// Throws InputError if there is none of that name.
  const StoredTensor& tensor(std::string_view name) const;
  /// The elements, in order. Throws InputError if the tensor is missing or not F32 (I32).
  std::vector<float> floats(std::string_view name) const;
  std::vector<std::int32_t> integers(std::string_view name) const;

 private:
  template <class T>
  std::vector<T> elements(std::string_view name, std::string_view dtype) const;

  MappedFile file_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
};

/// A tensor to write; the number of values is the product of the shape.
struct OutputTensor {
  std::string name;
  std::vector<std::size_t> shape;
  std::variant<std::span<const float>, std::span<const std::int32_t>> values;
};

/// Writes a safetensors file that appears whole or not at all: a temporary file beside it is written, synced and
/// renamed over `path`. Throws InputError if that fails (a full disk, no permission, `path` is a folder) and leaves
/// what was there before.
void write_safetensors(const std::filesystem::path& path, std::span<const OutputTensor> tensors);

}  // namespace memlane
