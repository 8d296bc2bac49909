#include "runtime/random_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace memlane {

namespace {

constexpr std::size_t kPiece = std::size_t{1} << 16;  // elements that one item fills

/// Steele and others' SplitMix64 (2014).
std::uint64_t next_random(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}

/// Fills with numbers of a standard deviation of `deviation`, evenly spread.
template <class T>
void fill_random(CpuExec& exec, T* out, std::size_t count, double deviation, std::uint64_t seed) {
  const auto scale = static_cast<float>(deviation * std::sqrt(12.0) / 65536);
  exec.pool().run((count + kPiece - 1) / kPiece, [&](std::size_t item, std::size_t) {
    std::uint64_t state = seed * 0x10001 + item;
    const std::size_t end = std::min(count, (item + 1) * kPiece);
    for (std::size_t i = item * kPiece; i < end; i += 4) {
      const std::uint64_t bits = next_random(state);
      for (std::size_t j = i; j < std::min(end, i + 4); ++j) {
        const auto part = static_cast<std::int32_t>(bits >> (16 * (j - i)) & 0xffffU);
        out[j] = from_float<T>((static_cast<float>(part) - 32767.5F) * scale);
      }
    }
  });
}

/// Random rows that matrices are packed from, each from another place.
class Source {
 public:
  /// Of numbers that about keep the size of what they are multiplied with.
  Source(CpuExec& exec, std::size_t most, std::size_t hidden) : exec_(exec), elements_(most + kPlaces) {
    fill_random(exec, elements_.data(), elements_.size(), 1 / std::sqrt(static_cast<double>(hidden)), 1);
  }
  PackedMatrix matrix(std::size_t n, std::size_t k, WeightFormat format) {
    const auto* rows = reinterpret_cast<const std::byte*>(elements_.data() + place_++ * 1009 % kPlaces);
    return {exec_, rows, DType::bf16, n, k, format};
  }

 private:
  static constexpr std::size_t kPlaces = std::size_t{1} << 16;
  CpuExec& exec_;
  Buffer<BFloat16> elements_;
  std::size_t place_ = 0;
};

Buffer<float> ones(std::size_t size) {
  Buffer<float> made(size);
  std::fill_n(made.data(), size, 1.0F);
  return made;
}

LayerWeights random_layer(Source& source, const ModelConfig& config, WeightFormat format) {
  const std::size_t hidden = config.hidden_size, wide = config.intermediate_size;
  const std::size_t q_size = config.num_heads * config.head_dim, kv_size = config.num_kv_heads * config.head_dim;
  LayerWeights layer;
  layer.attention_norm = ones(hidden);
  layer.mlp_norm = ones(hidden);
  layer.q = source.matrix(q_size, hidden, format);
  layer.k = source.matrix(kv_size, hidden, format);
  layer.v = source.matrix(kv_size, hidden, format);
  layer.o = source.matrix(hidden, q_size, format);
  layer.gate = source.matrix(wide, hidden, format);
  layer.up = source.matrix(wide, hidden, format);
  layer.down = source.matrix(hidden, wide, format);
  return layer;
}

}  // namespace

std::unique_ptr<RandomModel> random_model(CpuExec& exec, const ModelConfig& config, Precision precision) {
  auto made = std::make_unique<RandomModel>();
  const std::size_t hidden = config.hidden_size;
  const std::size_t widest =
      std::max({config.vocab_size, config.intermediate_size, config.num_heads * config.head_dim});
  const std::size_t rows = std::max(widest * hidden, hidden * config.num_heads * config.head_dim);
  made->model =
      Model{.folder = {}, .config = config, .checkpoint = {}, .precision = precision, .fingerprint = "random"};
  Weights& weights = made->model.weights;
  made->embedding_bytes = Buffer<std::byte>(config.vocab_size * hidden * sizeof(BFloat16));
  fill_random(exec, reinterpret_cast<BFloat16*>(made->embedding_bytes.data()), config.vocab_size * hidden, 1, 3);
  made->embedding = std::make_unique<Tensor>(Tensor{.name = "embedding",
                                                    .dtype = DType::bf16,
                                                    .shape = {config.vocab_size, hidden},
                                                    .bytes = made->embedding_bytes.span(),
                                                    .file = {}});
  weights.embedding = made->embedding.get();
  Source source(exec, rows, hidden);
  for (std::size_t layer = 0; layer < config.num_layers; ++layer) {
    weights.layers.push_back(random_layer(source, config, precision.weights));
  }
  weights.final_norm = ones(hidden);
  weights.head = source.matrix(config.vocab_size, hidden, precision.weights);
  return made;
}

RandomMemory::RandomMemory(CpuExec& exec, const EntryShape& shape, std::size_t entries, std::size_t segment_entries)
    : shape_(shape), segment_entries_(segment_entries), bytes_(bytes(shape, entries, segment_entries)) {
  if (entries == 0) return;
  with_type(shape.dtype, [&](auto type) {
    using T = decltype(type);
    fill_random(exec, reinterpret_cast<T*>(bytes_.data()), bytes_.size() / sizeof(T), 1, 7);
  });
}

DocumentMemory RandomMemory::document(const Lookup& lookup, std::size_t entries) const {
  DocumentMemory made(shape_, lookup);
  const std::size_t each = entries == 0 ? 0 : shape_.segment_bytes(segment_entries_);
  MEMLANE_EXPECTS(entries == 0 ||
                  (entries % segment_entries_ == 0 && entries / segment_entries_ * each <= bytes_.size()));
  for (std::size_t i = 0; i < entries; i += segment_entries_) {
    made.append(Segment(shape_, segment_entries_, bytes_.data() + i / segment_entries_ * each));
  }
  return made;
}

std::size_t RandomMemory::bytes(const EntryShape& shape, std::size_t entries, std::size_t segment_entries) {
  return entries == 0 ? 0 : entries / segment_entries * shape.segment_bytes(segment_entries);
}

}  // namespace memlane
