#include "runtime/decoder.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <type_traits>
#include <vector>

#include "kernels/feed_forward.h"
#include "kernels/layers.h"
#include "kernels/matmul.h"

#ifdef MEMLANE_HAS_CUDA
#include "runtime/cuda/cuda_backend.h"
#endif

namespace memlane {

/// The arrays of a pass over `tokens` tokens.
template <class Exec>
struct Decoder<Exec>::Activations {
  Activations(const ModelConfig& config, std::size_t tokens, ScratchLayout layout) {
    const auto take = [&](std::size_t width) {
      return View<float, 2, Device>(layout.take<float>(tokens * width), {tokens, width});
    };
    x = take(config.hidden_size);
    h = take(config.hidden_size);
    // Attention and feed-forward take turns in the same space.
    ScratchLayout turn = layout;
    q = take(config.num_heads * config.head_dim);
    k = take(config.num_kv_heads * config.head_dim);
    v = take(config.num_kv_heads * config.head_dim);
    attended = take(config.num_heads * config.head_dim);
    const std::size_t attention_end = layout.bytes();
    layout = turn;
    gate = take(config.intermediate_size);
    up = take(config.intermediate_size);
    bytes = std::max(attention_end, layout.bytes());
  }

  View<float, 2, Device> x;            // [tokens, hidden]: the residual stream
  View<float, 2, Device> h;            // [tokens, hidden]: space for the input, then the output, of a block
  View<float, 2, Device> q, attended;  // [tokens, heads * head_dim]
  View<float, 2, Device> k, v;         // [tokens, kv_heads * head_dim]
  View<float, 2, Device> gate, up;     // [tokens, intermediate]
  std::size_t bytes;
};

namespace {

/// tokens: of a pass; wanted: those at its end whose logits are asked for.
std::size_t tokens_to_record(const MemoryWeights* record, std::size_t tokens, std::size_t wanted) {
  if (record == nullptr) return 0;
  return record->stride == 0 ? wanted : (tokens + record->stride - 1) / record->stride;
}

/// slots: of layers, as Decoder has them.
std::size_t memory_layers_among(std::span<const int> slots) {
  return static_cast<std::size_t>(std::count_if(slots.begin(), slots.end(), [](int slot) { return slot >= 0; }));
}

/// Rows 0, stride, 2 * stride, … of [rows, width], one after the other.
std::vector<float> every_row(const float* values, std::size_t rows, std::size_t width, std::size_t stride) {
  std::vector<float> taken;
  taken.reserve((rows + stride - 1) / stride * width);
  for (std::size_t row = 0; row < rows; row += stride) {
    taken.insert(taken.end(), values + row * width, values + (row + 1) * width);
  }
  return taken;
}

}  // namespace

template <class Exec>
Decoder<Exec>::Decoder(Exec& exec, const Model& model, const MemorySettings& settings)
    : exec_(exec),
      model_(model),
      config_(model.config),
      memory_slots_(config_.num_layers, -1),
      weights_(Backend<Exec>::weights(model)),
      steps_(Backend<Exec>::make_steps(exec, model)) {
  for (std::size_t slot = 0; slot < settings.mem_layers.size(); ++slot) {
    memory_slots_[static_cast<std::size_t>(settings.mem_layers[slot])] = static_cast<int>(slot);
  }
}

template <class Exec>
void Decoder<Exec>::forward(std::span<const std::int32_t> ids, LocalAttention<Exec>& local, SeenMemory& memory,
                            Until until, const PassOutput& out) {
  MEMLANE_EXPECTS(!ids.empty() && out.tokens() <= ids.size() && (until == Until::logits) == (out.tokens() > 0));
  local.begin(exec_, ids.size());
  const std::size_t to_record = tokens_to_record(record_, ids.size(), out.tokens());
  recorded_ = memory.empty() ? 0 : to_record;
  if (ids.size() > 1 || until != Until::logits || !step(ids, local, memory, out)) {
    Activations at = activations(ids.size());
    embed(exec_, weights_.embedding_rows(), weights_.embedding_dtype(), ids, at.x);
    layers(at, local, memory, until);
    if (until == Until::logits) give(normed_last(at, out.tokens()), out);
  }
  local.advance();
  if (record_ != nullptr) record_->tokens += to_record;
}

/// Every layer that the pass needs; at.x: the embeddings.
template <class Exec>
void Decoder<Exec>::layers(Activations& at, LocalAttention<Exec>& local, SeenMemory& memory, Until until) {
  const auto last_memory =
      std::find_if(memory_slots_.rbegin(), memory_slots_.rend(), [](int slot) { return slot >= 0; });
  const auto memory_layers_end = static_cast<std::size_t>(memory_slots_.rend() - last_memory);
  const std::size_t layers = until == Until::memory ? memory_layers_end : config_.num_layers;
  const bool last_stores = until != Until::logits;
  attending_ = memory_layers_among(std::span(memory_slots_).first(last_stores && layers > 0 ? layers - 1 : layers));
  for (std::size_t layer = 0; layer < layers; ++layer) {
    if (stop_ != nullptr && stop_->load(std::memory_order_relaxed)) throw Interrupted("stopped");
    const bool store_only = last_stores && layer + 1 == layers;
    attention(layer, at, local, memory, store_only);
    if (!store_only) feed_forward(layer, at);
  }
}

/// What logits of the last tokens are made of: [tokens, hidden].
template <class Exec>
typename Decoder<Exec>::Input Decoder<Exec>::normed_last(Activations& at, std::size_t tokens) {
  const std::size_t end = at.x.extent(0), first = end - tokens;
  return normed(exec_, at.x.slice(first, end), weights_.final_norm.template view<1>({config_.hidden_size}),
                config_.rms_norm_eps, at.h.slice(first, end));
}

/// A pass of one token that ends in its logits or the next token, as a step that may be launched again for the next;
/// false if it is none, as always on the CPU: then nothing has been done. What the key does not have is decided by
/// settings, or on the device.
template <class Exec>
bool Decoder<Exec>::step(std::span<const std::int32_t> ids, LocalAttention<Exec>& local, SeenMemory& memory,
                         const PassOutput& out) {
  if constexpr (std::is_same_v<Exec, CpuExec>) {
    return false;
  } else {
    using Steps = typename Backend<Exec>::Steps;
    if (record_ != nullptr || !local.repeats_itself()) return false;
    if (!memory.empty()) memory.follow(exec_, config_.num_heads);
    if (!memory.empty() && memory.streamed_windows() > 0) return false;  // the host takes part in every layer
    if (stop_ != nullptr && stop_->load(std::memory_order_relaxed)) throw Interrupted("stopped");
    const typename Steps::Key key{.local = &local,
                                  .sees_far = local.sees_far(),
                                  .memory = &memory,
                                  .version = memory.empty() ? 0 : memory.version(),
                                  .draw = out.choice == nullptr ? std::nullopt : std::optional(out.choice->draw)};
    const typename Steps::Numbers numbers{
        ids.front(), {static_cast<std::uint32_t>(local.size()), static_cast<std::uint32_t>(local.memory_size())}};
    if (out.choice != nullptr) chooser_.take(exec_, *out.choice, config_.vocab_size);
    const bool did = steps_.run(key, numbers, out.logits, [&](const typename Steps::OnDevice& on_device) {
      struct Finding {  // until the step is queued, or is not
        LocalAttention<Exec>& local;
        ~Finding() { local.find_sizes(nullptr); }
      } const finding{local};
      local.find_sizes(on_device.sizes);
      Activations at = activations(1);
      embed(exec_, weights_.embedding_rows(), weights_.embedding_dtype(), on_device.ids, at.x);
      layers(at, local, memory, Until::logits);
      matmul(exec_, normed_last(at, 1), weights_.head, on_device.logits);
      if (out.choice != nullptr) chooser_.queue(exec_, on_device.logits);
    });
    if (did && out.choice != nullptr) chooser_.give(*out.choice);
    return did;
  }
}

/// h: [tokens, hidden], normed. Logits are made where the weights are; they go to the host only if they are asked for.
template <class Exec>
void Decoder<Exec>::give(const Input& h, const PassOutput& out) {
  if constexpr (std::is_same_v<Device, Host>) {
    if (out.choice == nullptr) return matmul(exec_, h, weights_.head, out.logits);
  }
  const std::size_t vocab = config_.vocab_size;
  made_logits_.reserve_discarding(out.tokens() * vocab);
  const auto logits = made_logits_.template view<2>({out.tokens(), vocab});
  matmul(exec_, h, weights_.head, logits);
  if (out.choice != nullptr) {
    chooser_.choose(exec_, logits, *out.choice);
  } else if constexpr (!std::is_same_v<Device, Host>) {
    download(exec_, logits, out.logits);
  }
}

/// x += W_o Attention(rms_norm(x)): over the local context and, in a memory layer, over the whole memory, in one
/// softmax. store_only: keep the keys and values and leave x alone, for the last layer of a pass that needs nothing
/// else.
template <class Exec>
void Decoder<Exec>::attention(std::size_t layer, Activations& at, LocalAttention<Exec>& local, SeenMemory& memory,
                              bool store_only) {
  const typename Backend<Exec>::LayerWeights& w = weights_.layers[layer];
  const std::size_t tokens = at.x.extent(0);
  const std::size_t heads = config_.num_heads;
  const std::size_t kv_heads = config_.num_kv_heads;
  const std::size_t head_dim = config_.head_dim;
  const View<float, 3, Device> q = at.q.template reshape<3>({tokens, heads, head_dim});
  const View<float, 3, Device> k = at.k.template reshape<3>({tokens, kv_heads, head_dim});
  const View<float, 3, Device> v = at.v.template reshape<3>({tokens, kv_heads, head_dim});
  const bool rounds = model_.precision.compute == DType::bf16;  // then q, k and v are bf16 values

  const Input h =
      normed(exec_, at.x, w.attention_norm.template view<1>({config_.hidden_size}), config_.rms_norm_eps, at.h);
  if (store_only) {
    matmul(exec_, h, {{w.k, at.k}, {w.v, at.v}});
  } else {
    matmul(exec_, h, {{w.q, at.q}, {w.k, at.k}, {w.v, at.v}});
  }
  if (rounds) round_to_bf16(exec_, at.k.flat());
  if (rounds && memory_slot(layer) >= 0) round_to_bf16(exec_, at.v.flat());  // elsewhere the cache rounds them alike
  {
    const StageScope stage(exec_.stage_clock(), Stage::append);
    local.store(exec_, layer, k, v);
  }
  if (store_only) return;

  const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim));
  const typename Backend<Exec>::Partial partial = local_partial_.get(tokens, heads, head_dim);
  {
    const StageScope stage(exec_.stage_clock(), Stage::local_attention);
    local.attend(exec_, layer, q, scale, partial);  // rotates the queries
  }
  const int slot = memory_slot(layer);
  if (slot >= 0 && !memory.empty()) {
    const typename Backend<Exec>::Partial from_memory = memory_partial_.get(tokens, heads, head_dim);
    const float memory_scale = scale * local.memory_key_factor();
    {
      const StageScope stage(exec_.stage_clock(), Stage::memory_attention);
      memory.attend(exec_, static_cast<std::size_t>(slot), q, memory_scale, from_memory);
    }
    merge(exec_, partial, from_memory);
    if constexpr (std::is_same_v<Exec, CpuExec>) {
      if (recorded_ > 0) record(static_cast<std::size_t>(slot), memory, q, memory_scale, partial);
    }
  }
  matmul_add(exec_, finished(exec_, partial, at.attended), w.o, at.x, at.h);
}

/// Adds what each entry of memory weighs for the recorded tokens of a pass. whole: the partial of local context and
/// memory.
template <class Exec>
void Decoder<Exec>::record(std::size_t slot, Memory& memory, View<const float, 3> queries, float scale,
                           AttentionPartial whole) requires(std::is_same_v<Exec, CpuExec>) {
  const std::size_t tokens = queries.extent(0);
  const double share = 1 / (static_cast<double>(attending_) * static_cast<double>(config_.num_heads));
  record_->sums.resize(memory.entries());  // new entries come behind those that were there
  const std::size_t stride = record_->stride;
  if (stride == 0) {
    memory.add_weights(exec_, slot, queries.slice(tokens - recorded_, tokens), scale,
                       whole.max.slice(tokens - recorded_, tokens), whole.weight.slice(tokens - recorded_, tokens),
                       share, record_->sums);
    return;
  }
  const std::size_t heads = queries.extent(1);
  const std::vector<float> q = every_row(queries.data(), tokens, heads * queries.extent(2), stride);
  const std::vector<float> max = every_row(whole.max.data(), tokens, heads, stride);
  const std::vector<float> weight = every_row(whole.weight.data(), tokens, heads, stride);
  memory.add_weights(exec_, slot, {q.data(), {recorded_, heads, queries.extent(2)}}, scale,
                     {max.data(), {recorded_, heads}}, {weight.data(), {recorded_, heads}}, share, record_->sums);
}

/// x += W_down (silu(W_gate h) * W_up h) with h = rms_norm(x).
template <class Exec>
void Decoder<Exec>::feed_forward(std::size_t layer, Activations& at) {
  const typename Backend<Exec>::LayerWeights& w = weights_.layers[layer];
  const Input h = normed(exec_, at.x, w.mlp_norm.template view<1>({config_.hidden_size}), config_.rms_norm_eps, at.h);
  memlane::feed_forward(exec_, h, w.gate, w.up, w.down, at.gate, at.up, at.h, at.x);
}

template <class Exec>
typename Decoder<Exec>::Activations Decoder<Exec>::activations(std::size_t tokens) {
  const std::size_t bytes = Activations(config_, tokens, ScratchLayout(nullptr)).bytes;
  workspace_.reserve_discarding(bytes / sizeof(float));
  return Activations(config_, tokens, ScratchLayout(reinterpret_cast<std::byte*>(workspace_.data())));
}

template <class Exec>
std::size_t Decoder<Exec>::workspace_bytes(const ModelConfig& config, std::size_t tokens) {
  const std::size_t partials = 2 * tokens * config.num_heads * (config.head_dim + 2) * sizeof(float);
  const std::size_t narrowed = tokens * (config.hidden_size + config.intermediate_size) * sizeof(BFloat16);
  return Activations(config, tokens, ScratchLayout(nullptr)).bytes + partials + narrowed;
}

template class Decoder<CpuExec>;
#ifdef MEMLANE_HAS_CUDA
template class Decoder<CudaExec>;
#endif

}  // namespace memlane
