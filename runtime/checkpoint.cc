#include "runtime/checkpoint.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "kernels/error.h"
#include "runtime/model_folder.h"
#include "runtime/strict_json.h"

namespace memlane {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
// Far above any model. Without them one small file under many names would fill the memory with tensors.
constexpr std::size_t kMostShards = 4096;
constexpr std::size_t kMostTensors = std::size_t{1} << 18;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::optional<DType> weight_type(std::string_view dtype) {
  if (dtype == "F32") return DType::f32;
  if (dtype == "F16") return DType::f16;
  if (dtype == "BF16") return DType::bf16;
  return std::nullopt;
}

fs::path shard_path(const fs::path& index, const std::string& shard) {
  const bool plain = !shard.empty() && shard != "." && shard != ".." && shard.find('/') == std::string::npos &&
                     shard.find('\0') == std::string::npos;
  if (!plain) {
    input_error("{}: expected the plain names of files beside it, found {}; download the model again", index.string(),
                shown(shard));
  }
  const fs::path path = file_of_model(index.parent_path(), shard);
  if (!is_there(path)) {
    input_error("{}: shard {} is missing beside it; download the rest of the model", index.string(), shown(shard));
  }
  return path;
}

/// Shard name -> names of the tensors it holds.
std::map<std::string, std::vector<std::string>> read_index(const fs::path& index) {
  const json root = read_json_object(index, "checkpoint index");
  const auto weight_map = root.find("weight_map");
  if (weight_map == root.end() || !weight_map->is_object() || weight_map->empty()) {
    input_error("{}: expected weight_map, an object of tensor names and file names, found {}; download the file again",
                index.string(), weight_map == root.end() ? "nothing" : describe(*weight_map));
  }
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [name, shard] : weight_map->items()) {
    if (!shard.is_string()) {
      input_error("{}: weight_map: expected a file name for {}, found {}", index.string(), shown(name),
                  describe(shard));
    }
    shards[shard.get<std::string>()].push_back(name);
  }
  if (shards.size() > kMostShards) {
    input_error("{}: expected at most {} shards, found {}; download the file again", index.string(), kMostShards,
                shards.size());
  }
  return shards;
}

[[noreturn]] void refuse_folder(const fs::path& model_dir) {
  const bool pickled =
      is_there(model_dir / "pytorch_model.bin") || is_there(model_dir / "pytorch_model.bin.index.json");
  if (pickled) {
    input_error(
        "{}: found a checkpoint only as pytorch_model.bin; run scripts/convert-pytorch-checkpoint {} to make {}",
        model_dir.string(), model_dir.string(), kSingleFile);
  }
  input_error("{}: expected {} or {} in it, found neither; download the model's weights", model_dir.string(),
              kSingleFile, kIndexFile);
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& model_dir) {
  std::error_code ignored;
  if (!fs::is_directory(model_dir, ignored)) {
    input_error("{}: expected the folder of a model (with {} in it), found {}", model_dir.string(), kSingleFile,
                is_there(model_dir) ? "no folder" : "nothing");
  }
  Checkpoint checkpoint;
  checkpoint.model_dir_ = model_dir;
  if (is_there(model_dir / kSingleFile)) {
    const SafetensorsFile& file = checkpoint.files_.emplace_back(file_of_model(model_dir, kSingleFile));
    for (const auto& [name, stored] : file.tensors()) checkpoint.add(file, stored);
  } else if (is_there(model_dir / kIndexFile)) {
    checkpoint.open_shards(file_of_model(model_dir, kIndexFile));
  } else {
    refuse_folder(model_dir);
  }
  return checkpoint;
}

void Checkpoint::open_shards(const fs::path& index) {
  std::size_t tensors = 0;
  for (const auto& [shard, names] : read_index(index)) {
    const SafetensorsFile& file = files_.emplace_back(shard_path(index, shard));
    tensors += file.tensors().size();
    if (tensors > kMostTensors) {
      input_error("{}: expected at most {} tensors in its shards, found more; download the model again", index.string(),
                  kMostTensors);
    }
    for (const std::string& name : names) {
      const StoredTensor* stored = file.find(name);
      if (stored == nullptr) {
        input_error("{}: expected tensor {} in shard {}, found none of that name; download the model again",
                    index.string(), shown(name), shown(shard));
      }
      add(file, *stored);
    }
  }
}

void Checkpoint::add(const SafetensorsFile& file, const StoredTensor& stored) {
  if (const std::optional<DType> dtype = weight_type(stored.dtype)) {
    tensors_.emplace(stored.name, Tensor{stored.name, *dtype, stored.shape, stored.bytes, file.path()});
  } else {
    other_types_.emplace(stored.name, stored.dtype);
  }
}

bool Checkpoint::contains(std::string_view name) const {
  return tensors_.find(name) != tensors_.end() || other_types_.find(name) != other_types_.end();
}

void Checkpoint::refuse_missing(std::string_view name, std::span<const std::size_t> expected_shape) const {
  const auto other = other_types_.find(name);
  if (other != other_types_.end()) {
    input_error("{}: tensor {}: expected dtype F32, F16 or BF16, found {}; other types are not supported yet",
                model_dir_.string(), shown(name), shown(other->second));
  }
  input_error(
      "{}: expected a tensor {} of shape {}, found none of that name; the checkpoint is not complete or config.json "
      "is of another model",
      model_dir_.string(), shown(name), shape_text(expected_shape));
}

const Tensor& Checkpoint::tensor(std::string_view name, std::span<const std::size_t> expected_shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) refuse_missing(name, expected_shape);
  const Tensor& tensor = found->second;
  if (!std::equal(tensor.shape.begin(), tensor.shape.end(), expected_shape.begin(), expected_shape.end())) {
    input_error("{}: tensor {}: expected shape {} as config.json says, found {}; config.json is of another model",
                tensor.file.string(), shown(name), shape_text(expected_shape), shape_text(tensor.shape));
  }
  return aligned(tensor);
}

const Tensor& Checkpoint::aligned(const Tensor& tensor) const {
  if (reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % size_of(tensor.dtype) == 0) return tensor;
  const std::lock_guard lock(aligned_->mutex);
  const auto [entry, is_new] = aligned_->copies.try_emplace(tensor.name);
  AlignedCopies::Copy& copy = entry->second;
  if (is_new) {
    copy.bytes = Buffer<std::byte>(tensor.bytes.size());
    if (!tensor.bytes.empty()) std::memcpy(copy.bytes.data(), tensor.bytes.data(), tensor.bytes.size());
    copy.tensor = tensor;
    copy.tensor.bytes = std::as_const(copy.bytes).span();
  }
  return copy.tensor;
}

std::vector<const Tensor*> Checkpoint::tensors() const {
  std::vector<const Tensor*> result;
  result.reserve(tensors_.size());
  for (const auto& [name, tensor] : tensors_) result.push_back(&tensor);
  return result;
}

}  // namespace memlane
