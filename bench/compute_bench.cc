// What rounding and top-k cost in accuracy: logits and perplexity of each compute type, weight format, memory type and
// lookup against float32 everywhere and dense memory, on the same tokens.
//   build/release/bench/bench_compute [MODEL TEXT TOKENS MEM_LAYER...]

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "memory/mapped_file.h"
#include "runtime/model.h"
#include "runtime/perplexity.h"
#include "runtime/session.h"
#include "runtime/tokenizer.h"

namespace memlane {
namespace {

struct Setting {
  Precision precision;
  DType memory;
  std::string lookup;
  std::size_t top_k;
};

/// Logits of every token, read as one call: windows into memory, the last ones local. [tokens, vocab]
std::vector<float> logits_of(CpuExec& exec, const std::filesystem::path& folder, const std::vector<int>& layers,
                             const Setting& setting, std::span<const std::int32_t> ids) {
  const Model model = load_model(exec, folder, setting.precision);
  MemoryOverrides overrides;
  overrides.mem_layers = layers;
  overrides.mem_dtype = setting.memory;
  const MemorySettings settings = resolve_memory_settings(model.config, overrides);
  Lookup lookup = Lookup::named(setting.lookup);
  lookup.top_k = setting.top_k;
  Session session(exec, model, settings, lookup);
  std::vector<float> logits(ids.size() * model.config.vocab_size);
  session.call(ids, settings.window, {logits.data(), {ids.size(), model.config.vocab_size}});
  return logits;
}

double perplexity(std::span<const float> logits, std::span<const std::int32_t> ids) {
  const View<const float, 2> rows(logits.data(), {ids.size(), logits.size() / ids.size()});
  return std::exp(sum_nll(rows, ids) / static_cast<double>(ids.size() - 1));
}

int run(int argc, char** argv) {
  const std::filesystem::path source = MEMLANE_SOURCE_DIR;
  const std::filesystem::path folder = argc > 1 ? argv[1] : (source / "models/stories260K").string();
  const std::filesystem::path text = argc > 2 ? argv[2] : (source / "examples/hound-of-the-baskervilles.txt").string();
  const std::size_t tokens = argc > 3 ? static_cast<std::size_t>(std::atol(argv[3])) : 8192;
  std::vector<int> layers;
  for (int i = 4; i < argc; ++i) layers.push_back(std::atoi(argv[i]));
  if (layers.empty()) layers = {2, 3};

  CpuExec exec;
  const MappedFile file(text, "text");
  std::vector<std::int32_t> ids = Tokenizer::open(folder).encode(file.text(), true);
  ids.resize(std::min(ids.size(), std::max<std::size_t>(tokens, 2)));
  const std::vector<Setting> settings = {{DType::f32, DType::f32, "dense", 128},
                                         {DType::f32, DType::f16, "dense", 128},
                                         {DType::f32, DType::bf16, "dense", 128},
                                         {DType::bf16, DType::bf16, "dense", 128},
                                         {DType::f32, DType::f32, "exact", 128},
                                         {DType::f32, DType::f32, "exact", 32},
                                         {{DType::f32, WeightFormat::int8}, DType::f32, "dense", 128},
                                         {{DType::bf16, WeightFormat::int8}, DType::bf16, "dense", 128},
                                         {{DType::f32, WeightFormat::int4}, DType::f32, "dense", 128},
                                         {{DType::bf16, WeightFormat::int4}, DType::bf16, "dense", 128}};
  fmt::print("{} tokens of {}, model {}\n", ids.size(), text.filename().string(), folder.filename().string());
  fmt::print("{:9} {:9} {:9} {:6} {:>5} {:>11} {:>9} {:>13} {:>13}\n", "compute", "weights", "memory", "lookup",
             "top_k", "perplexity", "change", "max |d logit|", "rms d logit");
  std::vector<float> exact;
  for (const Setting& setting : settings) {
    const std::vector<float> logits = logits_of(exec, folder, layers, setting, ids);
    if (exact.empty()) exact = logits;
    double worst = 0, squares = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double difference = std::abs(static_cast<double>(logits[i]) - static_cast<double>(exact[i]));
      worst = std::max(worst, difference);
      squares += difference * difference;
    }
    const double change = perplexity(logits, ids) / perplexity(exact, ids) - 1;
    fmt::print("{:9} {:9} {:9} {:6} {:>5} {:>11.4f} {:>8.3f}% {:>13.2e} {:>13.2e}\n",
               name_of(setting.precision.compute), name_of(setting.precision.weights), name_of(setting.memory),
               setting.lookup, setting.lookup == "dense" ? "-" : std::to_string(setting.top_k), perplexity(logits, ids),
               100 * change, worst, std::sqrt(squares / static_cast<double>(logits.size())));
  }
  return 0;
}

}  // namespace
}  // namespace memlane

int main(int argc, char** argv) {
  try {
    return memlane::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_compute: {}\n", error.what());
    return 2;
  }
}
