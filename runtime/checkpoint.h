#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/array.h"
#include "kernels/scalar.h"
#include "runtime/safetensors.h"

namespace memlane {

/// A weight of a model.
struct Tensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::size_t> shape;
  std::span<const std::byte> bytes;  // row-major
  std::filesystem::path file;        // where it is, for messages
};

/// The weights of a Hugging Face folder: model.safetensors, or the shards of model.safetensors.index.json, mapped and
/// read on demand. Moving a checkpoint keeps its tensors where they are. Reading from several threads is safe.
class Checkpoint {
 public:
  /// A checkpoint without tensors.
  Checkpoint() = default;
  /// Throws InputError if there is no such folder, no checkpoint in it, or one whose files are damaged or do not fit
  /// together.
  static Checkpoint open(const std::filesystem::path& model_dir);

  bool contains(std::string_view name) const;

  /// The tensor of that name, its bytes aligned to its element size. Throws InputError, naming tensor, expected and
  /// found shape or dtype, if it is missing, of another shape, or neither F32, F16 nor BF16.
  const Tensor& tensor(std::string_view name, std::span<const std::size_t> expected_shape) const;

  /// Every tensor of type F32, F16 or BF16, by name. Bytes may be unaligned in files of old writers; tensor() aligns.
  std::vector<const Tensor*> tensors() const;

 private:
  /// Copies of tensors whose bytes lie unaligned in the file, made when they are asked for.
  struct AlignedCopies {
    struct Copy {
      Buffer<std::byte> bytes;
      Tensor tensor;
    };
    std::mutex mutex;
    std::map<std::string, Copy, std::less<>> copies;
  };

  void add(const SafetensorsFile& file, const StoredTensor& stored);
  void open_shards(const std::filesystem::path& index);
  const Tensor& aligned(const Tensor& tensor) const;
  [[noreturn]] void refuse_missing(std::string_view name, std::span<const std::size_t> expected_shape) const;

  std::filesystem::path model_dir_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Tensor, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> other_types_;  // name -> dtype of tensors that are no weights
  std::unique_ptr<AlignedCopies> aligned_ = std::make_unique<AlignedCopies>();
};

}  // namespace memlane
