// Whole passes of LongLLaMA-3B's shape on a GPU, with random weights, and entries that are streamed from the host.

#include "bench/cuda_report.h"
#include "kernels/matmul.h"
#include "memory/cuda/cuda_memory.h"
#include "runtime/cost_estimate.h"
#include "runtime/cuda/cuda_model.h"
#include "runtime/random_model.h"
#include "runtime/session.h"

namespace memlane {

namespace {

constexpr std::size_t kWindow = 2048;

ModelConfig shape_a() {
  ModelConfig config;
  config.model_type = "longllama";
  config.num_layers = 26;
  config.hidden_size = 3200;
  config.intermediate_size = 8640;
  config.num_heads = config.num_kv_heads = 32;
  config.head_dim = 100;
  config.vocab_size = 32000;
  config.max_position_embeddings = kWindow;
  config.rms_norm_eps = 1e-5F;
  return config;
}

/// A model that is small enough for the launches of its kernels to be what decoding takes.
ModelConfig small_shape() {
  ModelConfig config = shape_a();
  config.num_layers = 12;
  config.hidden_size = 768;
  config.intermediate_size = 2048;
  config.num_heads = config.num_kv_heads = 12;
  config.head_dim = 64;
  return config;
}

/// Matrices that all have the same random elements, from one place of the host.
class Matrices {
 public:
  Matrices(CudaExec& exec, CpuExec& cpu, std::size_t most, WeightFormat format)
      : exec_(exec), cpu_(cpu), format_(format), elements_(most) {
    const std::vector<float> numbers = random_floats(most, 21);
    for (std::size_t i = 0; i < most; ++i) elements_[i] = from_float<BFloat16>(numbers[i] / 33);  // keeps sizes
  }
  CudaMatrix operator()(std::size_t n, std::size_t k) {
    const auto* rows = reinterpret_cast<const std::byte*>(elements_.data());
    if (!is_quantised(format_)) return {exec_, rows, DType::bf16, n, k};
    const PackedMatrix packed(cpu_, rows, DType::bf16, n, k, format_);
    return {exec_, reinterpret_cast<const std::byte*>(packed.panel(0)), format_, n, k};
  }

 private:
  CudaExec& exec_;
  CpuExec& cpu_;
  WeightFormat format_;
  std::vector<BFloat16> elements_;
};

CudaBuffer<float> ones(CudaExec& exec, std::size_t size) {
  const std::vector<float> values(size, 1);
  CudaBuffer<float> made = uploaded(exec, values.data(), size);
  exec.synchronize();
  return made;
}

Model random_model_on_gpu(CpuExec& cpu, const ModelConfig& shape, WeightFormat format) {
  Model model{.folder = {},
              .config = shape,
              .checkpoint = {},
              .precision = Precision(DType::bf16, format),
              .fingerprint = "random"};
  const ModelConfig& config = model.config;
  const std::size_t hidden = config.hidden_size, wide = config.intermediate_size;
  model.cuda = std::make_shared<CudaModel>(0);
  CudaExec& exec = model.cuda->exec;
  CudaWeights& weights = model.cuda->weights;
  Matrices matrix(exec, cpu, config.vocab_size * hidden, format);
  for (std::size_t i = 0; i < config.num_layers; ++i) {
    CudaLayerWeights layer;
    layer.attention_norm = ones(exec, hidden);
    layer.mlp_norm = ones(exec, hidden);
    for (CudaMatrix* to : {&layer.q, &layer.k, &layer.v, &layer.o}) *to = matrix(hidden, hidden);
    layer.gate = matrix(wide, hidden);
    layer.up = matrix(wide, hidden);
    layer.down = matrix(hidden, wide);
    weights.layers.push_back(std::move(layer));
  }
  weights.final_norm = ones(exec, hidden);
  weights.head = matrix(config.vocab_size, hidden);
  const std::vector<float> embedding = random_floats(config.vocab_size * hidden, 22);
  weights.embedding = uploaded(exec, reinterpret_cast<const std::byte*>(embedding.data()), embedding.size() * 4);
  weights.embedding_type = DType::f32;
  exec.synchronize();
  return model;
}

std::vector<std::int32_t> some_ids(std::size_t count) {
  std::vector<std::int32_t> ids(count);
  for (std::size_t i = 0; i < count; ++i) ids[i] = static_cast<std::int32_t>(i * 7919 % 32000);
  return ids;
}

/// One token after another behind a short prompt, no memory: as graphs, and with every kernel launched by itself.
void measure_decode(CpuExec& cpu, const Model& model, const char* shape, Report& report, double bandwidth) {
  const MemorySettings settings = resolve_memory_settings(model.config, {.mem_layers = std::vector<int>{}});
  for (const bool graphs : {true, false}) {
    model.cuda->graphs = graphs;
    model.cuda->steps = {};
    Session session(cpu, model, settings, Lookup());
    Sampler sampler({});
    session.next(some_ids(32), kWindow, sampler);
    const std::vector<std::int32_t> next = {17};
    const double time = seconds(model.cuda->exec, 5, 20, [&] { session.next(next, kWindow, sampler); });
    const double bytes = bytes_read_per_token(model.config, settings, model.precision, Lookup(), {80, 0});
    const bool replayed = model.cuda->steps.replayed > 0;
    const char* how = !graphs ? ", graphs off" : !replayed ? ", graphs refused" : "";
    report.row(fmt::format("decode, {}, no memory, {}{}", shape, name_of(model.precision.weights), how), time, bytes,
               "GB/s", bandwidth);
  }
  model.cuda->graphs = true;
}

void measure_prefill(CpuExec& cpu, const Model& model, Report& report, double rate) {
  const ModelConfig& config = model.config;
  const MemorySettings settings = resolve_memory_settings(config, {.mem_layers = std::vector<int>{}});
  Session session(cpu, model, settings, Lookup());
  std::vector<float> logits(config.vocab_size);
  const std::vector<std::int32_t> ids = some_ids(kWindow);
  const double time = seconds(model.cuda->exec, 5, 2, [&] {  // each window drops the one before
    session.call(ids, kWindow, {logits.data(), {1, logits.size()}});
  });
  const double hidden = static_cast<double>(config.hidden_size), tokens = kWindow;
  const double weights = hidden * (4 * hidden + 3 * static_cast<double>(config.intermediate_size));
  const double layer = 2 * tokens * weights + 2 * tokens * tokens * hidden;  // half of all pairs, twice two operations
  report.row(fmt::format("prefill of 2048, shape A, {}", name_of(model.precision.weights)), time,
             layer * static_cast<double>(config.num_layers), "GFLOP/s", rate);
}

/// Windows read into memory, with exact search of those before them.
void measure_ingest(CpuExec& cpu, const Model& model, Report& report, std::size_t windows, double rate) {
  const MemorySettings settings = resolve_memory_settings(model.config, {.mem_layers = std::vector<int>{6, 12, 18}});
  Lookup lookup = Lookup::named("exact");
  lookup.top_k = 32;
  Session session(cpu, model, settings, lookup);
  const std::vector<std::int32_t> ids = some_ids(kWindow);
  session.read_window(ids);
  const auto begin = std::chrono::steady_clock::now();
  for (std::size_t window = 1; window < windows; ++window) session.read_window(ids);
  const double time = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const ReadingCost cost = reading_cost(model.config, settings, kWindow, windows * kWindow);
  const double operations = cost.matmul_flops + 2 * cost.scores * static_cast<double>(model.config.head_dim);
  report.row(fmt::format("ingest of {} tokens, shape A, exact top-32", (windows - 1) * kWindow), time, operations,
             "GFLOP/s", rate);
}

}  // namespace

void measure_streaming(CudaExec& exec, Report& report) {
  constexpr std::size_t kHeads = 32, kHeadDim = 100, kWindows = 48;
  CpuExec cpu(available_threads());
  CudaStaging staging(exec, CudaBudget::kPiece);
  const double copy = seconds(exec, 5, 2, [&] {
    staging.copy(0, CudaBudget::kPiece);
    staging.mark_sent(0);
    staging.wait_until_sent(0);
  });
  const double bus = CudaBudget::kPiece / copy;
  report.row("copy from pinned memory of the host", copy, CudaBudget::kPiece, "GB/s", bus);

  const EntryShape shape{{0}, kHeads, kHeadDim, DType::bf16};
  const RandomMemory entries(cpu, shape, kWindows * kWindow, kWindow);
  for (const char* name : {"dense", "exact"}) {
    Lookup lookup = Lookup::named(name);
    lookup.top_k = 32;
    const DocumentMemory document = entries.document(lookup, kWindows * kWindow);
    Memory memory(shape, lookup);
    memory.add(document);
    CudaMemory streamed(memory, cpu.pool(), {.resident = 0});
    const CudaBuffer<float> queries = random_array(exec, kHeads * kHeadDim, 23);
    CudaPartialBuffer partials;
    const CudaPartial partial = partials.get(1, kHeads, kHeadDim);
    const double time = seconds(exec, 5, 2, [&] {
      streamed.attend(exec, 0, queries.view<3>({1, kHeads, kHeadDim}), 0.1F, partial);
    });
    const double bytes = static_cast<double>(kWindows * shape.segment_bytes(kWindow));
    report.row(fmt::format("{}, 1 token over {} entries from the host", name, document.entries()), time,
               lookup.kind == Lookup::Kind::dense ? bytes : bytes / 2, "GB/s", bus);
  }
}

void measure_model(Report& report, const CudaLimitsMeasured& limits, std::size_t windows) {
  CpuExec cpu(available_threads());
  for (const WeightFormat format : {WeightFormat::bf16, WeightFormat::int8, WeightFormat::int4}) {
    const Model model = random_model_on_gpu(cpu, shape_a(), format);
    measure_decode(cpu, model, "shape A", report, limits.bandwidth);
    measure_prefill(cpu, model, report, limits.rate);
    if (format == WeightFormat::bf16)
      measure_ingest(cpu, model, report, std::max<std::size_t>(2, windows / 8), limits.rate);
  }
  const Model small = random_model_on_gpu(cpu, small_shape(), WeightFormat::bf16);
  measure_decode(cpu, small, "12 layers of 768", report, limits.bandwidth);
}

}  // namespace memlane
