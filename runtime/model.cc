#include "runtime/model.h"

#include <utility>
#include <vector>

#include "memory/hash.h"
#include "memory/mapped_file.h"
#include "runtime/resources.h"

#ifdef MEMLANE_HAS_CUDA
#include "runtime/cuda/cuda_model.h"
#endif

namespace memlane {

DType default_compute(const Checkpoint& checkpoint) {
  for (const Tensor* tensor : checkpoint.tensors()) {
    if (tensor->name == "model.embed_tokens.weight") return tensor->dtype == DType::f32 ? DType::f32 : DType::bf16;
  }
  return DType::f32;  // no embedding: loading the weights will say so
}

std::string model_fingerprint(CpuExec& exec, const ModelConfig& config, const Checkpoint& checkpoint) {
  const std::vector<const Tensor*> tensors = checkpoint.tensors();
  std::vector<std::string> parts(tensors.size());
  exec.pool().run(tensors.size(), [&](std::size_t i, std::size_t) {
    const Tensor& tensor = *tensors[i];
    Fingerprint part;
    part.add(tensor.name).add(name_of(tensor.dtype)).add(std::as_bytes(std::span(tensor.shape))).add(tensor.bytes);
    parts[i] = part.hex();
    let_go(tensor.bytes);
  });
  Fingerprint whole;
  whole.add(fmt::format("{} {} {} {} {} {} {} {} {:.9g} {:.17g} {} {}", config.model_type, config.vocab_size,
                        config.hidden_size, config.intermediate_size, config.num_layers, config.num_heads,
                        config.num_kv_heads, config.head_dim, config.rms_norm_eps, config.rope.theta,
                        config.tie_word_embeddings, config.mem_positionals));
  for (const std::string& part : parts) whole.add(part);
  return whole.hex();
}

namespace {

void load_on_gpu([[maybe_unused]] CpuExec& exec, [[maybe_unused]] Model& model, [[maybe_unused]] DeviceChoice device) {
#ifdef MEMLANE_HAS_CUDA
  model.cuda = load_cuda_model(device.cuda, exec, model.checkpoint, model.config, model.precision);
#else
  MEMLANE_EXPECTS(device.is_cpu());  // device_named() refuses others
#endif
}

}  // namespace

Model load_model(CpuExec& exec, const std::filesystem::path& folder, std::optional<Precision> precision,
                 DeviceChoice device) {
  Model model{.folder = folder, .config = read_model_config(folder), .checkpoint = Checkpoint::open(folder)};
  model.precision = precision.value_or(Precision(default_compute(model.checkpoint)));
  if (device.is_cpu()) {
    require_memory(weight_bytes(model.config, model.precision), fmt::format("the weights of {}", folder.string()),
                   "use --weights int8 or int4, or a machine with more memory");
    try {
      model.weights = load_weights(exec, model.checkpoint, model.config, model.precision.weights);
    } catch (const InputError& error) {
      if (!is_quantised(model.precision.weights)) throw;
      input_error("{}: {}", folder.string(), error.what());
    }
  } else {
    load_on_gpu(exec, model, device);
  }
  model.fingerprint = model_fingerprint(exec, model.config, model.checkpoint);
  return model;
}

}  // namespace memlane
