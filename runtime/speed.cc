#include "runtime/speed.h"

#include <algorithm>
#include <random>

#include "kernels/key_lists.h"
#include "kernels/stopwatch.h"
#include "memory/list_settings.h"
#include "runtime/cost_estimate.h"
#include "runtime/local_settings.h"

namespace memlane {

namespace {

double count(std::size_t x) {
  return static_cast<double>(x);
}

/// What a query looks at of the keys of one layer and head: a share of all, in their stored form or in lists, and means
/// of lists.
struct Scan {
  Scan(const Lookup& lookup, std::size_t entries) {
    if (!lookup.has_lists() || entries == 0) return;
    const ListSettings settings = ListSettings::of(lookup);
    lists = (entries + settings.chunk - 1) / settings.chunk * settings.lists;
    share = std::min(1.0, count(settings.probes_of(lists)) / count(lists));
  }
  std::size_t lists = 0;
  double share = 1;

  /// Bytes of lists and means; those of stored keys are counted by bytes_read_per_token.
  double list_bytes(std::size_t entries, std::size_t head_dim) const {
    if (lists == 0) return 0;
    return share * count(entries * key_list_panel_bytes(head_dim)) / kPanelEntries +
           count(lists * head_dim * sizeof(float));
  }
};

}  // namespace

std::string SpeedCase::name() const {
  if (kind == Kind::prefill) return "prefill";
  return kind == Kind::decode ? "decode" : "ingest";
}

double SpeedFloor::seconds(const MachineLimits& limits, Precision precision) const {
  const double peak = precision.compute == DType::bf16 ? limits.bf16 : limits.f32;
  double matmul_peak = precision.weights == WeightFormat::bf16 ? limits.bf16 : limits.f32;
  if (is_quantised(precision.weights) && limits.int8 > 0) matmul_peak = limits.int8;
  const double list_peak = limits.int8 > 0 ? limits.int8 : peak;
  const double computing = matmul_operations / matmul_peak + attention_operations / peak + list_operations / list_peak;
  return std::max(computing, bytes / limits.read);
}

SpeedRun::SpeedRun(CpuExec& exec, const Model& model, const Settings& settings)
    : exec_(exec),
      model_(model),
      settings_(settings),
      entries_(exec, entry_shape(model.config, settings.memory), settings.most_entries, kSegment),
      local_(exec, model.config, settings.memory, model.precision.compute),
      decoder_(exec, model, settings.memory),
      limits_(exec, settings.ring_bytes),
      ids_(settings.memory.window),
      logits_(model.config.vocab_size) {
  std::mt19937_64 random(11);
  for (std::int32_t& id : ids_) id = static_cast<std::int32_t>(random() % model.config.vocab_size);
  decoder_.set_stop_flag(settings.stop);
}

void SpeedRun::clear() {
  local_.clear_memory_layers();
  local_.move_on(exec_);
}

/// One measurement: seconds of a window, or of one decoded token.
double SpeedRun::pass(const SpeedCase& of, Memory& memory) {
  using Until = Decoder<CpuExec>::Until;
  const std::span<const std::int32_t> ids(ids_);
  const View<float, 2> logits(logits_.data(), {1, logits_.size()});
  const auto timed = [&](const auto& work) {
    clock_.restart();
    return seconds_once(work);
  };
  double seconds = 0;
  if (of.kind == SpeedCase::Kind::prefill) {
    seconds = timed([&] { decoder_.forward(ids, local_, memory, Until::logits, logits); });
  } else if (of.kind == SpeedCase::Kind::ingest) {
    seconds = timed([&] {
      decoder_.forward(ids, local_, memory, Until::memory, {});
      const StageScope stage(exec_.stage_clock(), Stage::append);
      const Segment segment = local_.to_segment(exec_, memory.shape());
      clear();
    });
  } else {
    const std::size_t question = std::min(kQuestion, ids.size() - settings_.decode_tokens);
    decoder_.forward(ids.first(question), local_, memory, Until::logits, logits);
    seconds = timed([&] {
      for (std::size_t i = 0; i < settings_.decode_tokens; ++i) {
        decoder_.forward(ids.subspan(question + i, 1), local_, memory, Until::logits, logits);
      }
    });
    seconds /= count(settings_.decode_tokens);
  }
  if (local_.size() > 0) clear();
  return seconds;
}

SpeedCell SpeedRun::measure(const SpeedCase& of, std::size_t rounds) {
  DocumentMemory document = entries_.document(of.lookup, of.memory);
  document.update_indexes(exec_);
  Memory memory(document.shape(), of.lookup);
  memory.add(document);
  SpeedCell cell{.of = of, .seconds = {}, .limits = {}, .floor = floor(of)};
  const bool decodes = of.kind == SpeedCase::Kind::decode;
  cell.tokens = decodes ? 1 : ids_.size();
  const double each = 1 / (count(rounds) * (decodes ? count(settings_.decode_tokens) : 1));
  pass(of, memory);
  exec_.set_stage_clock(&clock_);
  for (std::size_t round = 0; round < rounds; ++round) {
    cell.limits.push_back(limits_.measure());
    cell.seconds.push_back(pass(of, memory));
    const StageClock::Seconds& stages = clock_.read();
    for (std::size_t i = 0; i < kStages; ++i) cell.stages[i] += stages[i] * each;
  }
  exec_.set_stage_clock(nullptr);
  return cell;
}

SpeedFloor SpeedRun::floor(const SpeedCase& of) const {
  const ModelConfig& config = model_.config;
  const MemorySettings& settings = settings_.memory;
  SpeedFloor floor;
  if (of.kind == SpeedCase::Kind::decode) {
    const std::size_t local = kQuestion + settings_.decode_tokens / 2;
    floor.bytes = bytes_read_per_token(config, settings, model_.precision, of.lookup, {local, of.memory}) +
                  count(settings.mem_layers.size() * config.num_kv_heads) *
                      Scan(of.lookup, of.memory).list_bytes(of.memory, config.head_dim);
    return floor;
  }
  const bool whole = of.kind == SpeedCase::Kind::prefill;
  const double tokens = count(ids_.size()), hidden = count(config.hidden_size);
  const double q_size = count(config.num_heads * config.head_dim);
  const double kv_weights = 2 * count(config.num_kv_heads * config.head_dim) * hidden;
  const double layer_weights = 2 * q_size * hidden + kv_weights + 3 * hidden * count(config.intermediate_size);
  // Reading ends with the keys and values of the last memory layer.
  const double layers = whole ? count(config.num_layers) : static_cast<double>(settings.mem_layers.back());
  const double head_weights = hidden * count(config.vocab_size);
  floor.matmul_operations =
      2 * tokens * (layers * layer_weights + (whole ? 0 : kv_weights)) + (whole ? 2 * head_weights : 0);
  const double attending = count(settings.mem_layers.size()) - (whole ? 0 : 1);
  const double pairs = attending * q_size * tokens * count(of.memory);  // of elements of queries and of entries
  floor.attention_operations = 2 * q_size * tokens * (tokens + 1) * layers;
  if (of.lookup.has_lists()) {
    floor.list_operations = 2 * Scan(of.lookup, of.memory).share * pairs;
  } else {
    floor.attention_operations += (of.lookup.kind == Lookup::Kind::dense ? 4 : 2) * pairs;
  }
  return floor;
}

std::size_t SpeedRun::bytes(const ModelConfig& config, Precision precision, const Settings& settings) {
  const EntryShape shape = entry_shape(config, settings.memory);
  return RandomMemory::bytes(shape, settings.most_entries, kSegment) +
         Session::bytes(config, settings.memory, precision.compute, settings.memory.window) + settings.ring_bytes;
}

}  // namespace memlane
