// The kernels that a window's time goes to, on every instruction set of this machine, beside the machine's own limits
// in the same run: the rate of multiply-adds and the bandwidth of reading. build/release/bench/bench_kernels
// --benchmark_filter=...

#include <benchmark/benchmark.h>
#include <faiss/IndexFlat.h>
#include <fmt/format.h>
#include <omp.h>

#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#if defined(MEMLANE_DNNL)
#include <dnnl.hpp>
#endif

#include "kernels/attention.h"
#include "kernels/cpu/quantised_kernels.h"
#include "kernels/cpu/tile_kernels.h"
#include "kernels/matmul.h"
#include "kernels/sampling.h"
#include "kernels/top_k.h"

namespace memlane {
namespace {

using benchmark::Counter;
using benchmark::State;

std::vector<float> random_floats(std::size_t count) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(random);
  return values;
}

InstructionSet best_or(int set) {
  return std::min(static_cast<InstructionSet>(set), detect_instruction_set());
}

void count_flops(State& state, double flops_per_iteration) {
  state.counters["FLOP/s"] = Counter(flops_per_iteration * static_cast<double>(state.iterations()), Counter::kIsRate);
}

// ---- Limits of the machine
// -----------------------------------------------------------------------------------------------------

/// A product that never leaves the first-level cache: what the multiply-add units can do with this code.
void BM_PeakF32(State& state) {
  CpuExec exec(available_threads(), best_or(static_cast<int>(state.range(0))));
  constexpr std::size_t kRows = 112, kDepth = 128, kRepeats = 200;
  const auto a = random_floats(kRows * kDepth);
  const auto b = random_floats(kDepth * 32);
  for (auto _ : state) {
    exec.pool().run(exec.threads(), [&](std::size_t, std::size_t worker) {
      auto* c = reinterpret_cast<float*>(exec.worker_scratch(worker, kRows * 32 * sizeof(float)));
      for (std::size_t i = 0; i < kRepeats; ++i)
        exec.micro().gemm_f32(kRows, kDepth, a.data(), kDepth, b.data(), c, 32, false);
      benchmark::DoNotOptimize(c);
    });
  }
  state.SetLabel(exec.micro().name);
  count_flops(state, 2.0 * kRows * kDepth * 32 * kRepeats * static_cast<double>(exec.threads()));
}
BENCHMARK(BM_PeakF32)->DenseRange(0, 3)->UseRealTime();

/// The same for bfloat16, by vdpbf16ps or, where there are matrix tiles, by them.
void BM_PeakBf16(State& state) {
  CpuExec exec(available_threads(), best_or(static_cast<int>(state.range(0))));
  constexpr std::size_t kRows = 64, kPairs = 128, kRepeats = 1000;
  const std::vector<std::uint32_t> a(kRows * kPairs, 0x3f803f80U), b(kPairs * 32, 0x3f803f80U);
  const TileKernels* tiles = exec.micro().tiles;
  for (auto _ : state) {
    exec.pool().run(exec.threads(), [&](std::size_t, std::size_t worker) {
      auto* c = reinterpret_cast<float*>(exec.worker_scratch(worker, kRows * 32 * sizeof(float)));
      for (std::size_t i = 0; i < kRepeats; ++i) {
        if (tiles != nullptr) {
          tiles->gemm(kRows, kPairs, a.data(), 16 * kPairs, b.data(), c, 32, false);
        } else {
          exec.micro().gemm_bf16(kRows, kPairs, a.data(), kPairs, b.data(), c, 32, false);
        }
      }
      benchmark::DoNotOptimize(c);
    });
  }
  state.SetLabel(exec.micro().name);
  count_flops(state, 4.0 * kRows * kPairs * 32 * kRepeats * static_cast<double>(exec.threads()));
}
BENCHMARK(BM_PeakBf16)->DenseRange(3, 4)->UseRealTime();

/// The same for int8: products of a group that never leave the first-level cache, by vpdpbusd or tiles.
void BM_PeakInt8(State& state) {
  CpuExec exec(available_threads(), best_or(static_cast<int>(state.range(0))));
  constexpr std::size_t kRows = 64, kRepeats = 2000;
  const std::vector<std::uint32_t> a(kRows * kQuantGroup / 4, 0x01010101U), b(32 + 8 * kQuantGroup, 0x01010101U);
  const std::vector<float> scales(kRows, 1.0F);
  const std::vector<std::int32_t> sums(kRows, kQuantGroup);
  const QuantisedKernels& kernels = *exec.micro().quantised;
  const bool tiles = kernels.gemm_tiles != nullptr;
  const QuantisedRows rows = {a.data(), (tiles ? 16 : 1) * kQuantGroup / 4, scales.data(), sums.data(), 1};
  for (auto _ : state) {
    exec.pool().run(exec.threads(), [&](std::size_t, std::size_t worker) {
      auto* c = reinterpret_cast<float*>(exec.worker_scratch(worker, kRows * 32 * sizeof(float)));
      const auto* panel = reinterpret_cast<const std::byte*>(b.data());
      if (tiles) exec.micro().tiles->shape();
      for (std::size_t i = 0; i < kRepeats; ++i) {
        if (tiles) {
          kernels.gemm_tiles(kRows, kQuantGroup, rows, panel, c, 32, false);
        } else {
          kernels.gemm(kRows, kQuantGroup, rows, panel, c, 32, false);
        }
      }
      if (tiles) exec.micro().tiles->release();
      benchmark::DoNotOptimize(c);
    });
  }
  state.SetLabel(exec.micro().name);
  count_flops(state, 2.0 * kRows * kQuantGroup * 32 * kRepeats * static_cast<double>(exec.threads()));
}
BENCHMARK(BM_PeakInt8)->DenseRange(3, 4)->UseRealTime();

void BM_ReadBandwidth(State& state) {
  CpuExec exec;
  Buffer<std::uint64_t> data = Buffer<std::uint64_t>::zeroed(std::size_t{1} << 27);  // 1 GiB
  constexpr std::size_t kPiece = std::size_t{1} << 16;
  for (auto _ : state) {
    exec.pool().run(data.size() / kPiece, [&](std::size_t item, std::size_t) {
      std::uint64_t sum = 0;
      for (std::size_t i = 0; i < kPiece; ++i) sum ^= data.data()[item * kPiece + i];
      benchmark::DoNotOptimize(sum);
    });
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(data.bytes()) * state.iterations());
}
BENCHMARK(BM_ReadBandwidth)->UseRealTime();

// ---- Matrix products
// -----------------------------------------------------------------------------------------------------------

/// Matrices of one shape, so many that the weights of one row's product come from memory, not from a cache.
std::vector<PackedMatrix> ring_of(CpuExec& exec, std::size_t m, std::size_t n, std::size_t k, WeightFormat format) {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  const auto weights = random_floats(n * k);
  const std::size_t count = m > 1 ? 1 : kBytes / PackedMatrix::packed_bytes(n, k, format) + 1;
  std::vector<PackedMatrix> ring;
  for (std::size_t i = 0; i < count; ++i) {
    ring.emplace_back(exec, reinterpret_cast<const std::byte*>(weights.data()), DType::f32, n, k, format);
  }
  return ring;
}

/// Arguments: rows m, outputs n, inputs k, weight format, instruction set.
void BM_Matmul(State& state) {
  const auto m = static_cast<std::size_t>(state.range(0)), n = static_cast<std::size_t>(state.range(1)),
             k = static_cast<std::size_t>(state.range(2));
  const auto format = static_cast<WeightFormat>(state.range(3));
  CpuExec exec(available_threads(), best_or(static_cast<int>(state.range(4))));
  const auto a = random_floats(m * k);
  const std::vector<PackedMatrix> ring = ring_of(exec, m, n, k, format);
  std::vector<float> c(m * n);
  std::size_t next = 0;
  for (auto _ : state) {
    matmul(exec, {a.data(), {m, k}}, ring[next], {c.data(), {m, n}});
    next = (next + 1) % ring.size();
  }
  state.SetLabel(fmt::format("{} {}", name_of(format), exec.micro().name));
  count_flops(state, 2.0 * static_cast<double>(m * n * k));
  state.SetBytesProcessed(static_cast<std::int64_t>(ring.front().bytes()) * state.iterations());
}
BENCHMARK(BM_Matmul)
    ->ArgNames({"m", "n", "k", "format", "set"})
    ->ArgsProduct({{2048, 1}, {2048}, {2048}, {0, 1, 2, 3}, {0, 1, 2, 3, 4}})
    ->ArgsProduct({{2048, 1}, {8640}, {3200}, {0, 1, 2, 3}, {3, 4}})
    ->ArgsProduct({{2048, 1}, {3200}, {8640}, {1, 2, 3}, {3, 4}})
    ->ArgsProduct({{2048, 1}, {1024}, {288}, {1, 2, 3}, {3, 4}})
    ->ArgsProduct({{2048, 1}, {768}, {2048}, {1, 2, 3}, {3, 4}})
    ->UseRealTime();

/// The yardstick: Eigen on one thread (it does not thread without OpenMP).
void BM_EigenMatmulOneThread(State& state) {
  using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Matrix a = Matrix::Random(2048, 2048), w = Matrix::Random(2048, 2048);
  Matrix c(2048, 2048);
  for (auto _ : state) c.noalias() = a * w.transpose();
  count_flops(state, 2.0 * 2048 * 2048 * 2048);
}
BENCHMARK(BM_EigenMatmulOneThread)->UseRealTime();

#if defined(MEMLANE_DNNL)
/// Another: oneDNN, its weights packed once in the layout that it asks for. Arguments: m, n, k, type (0: float32, 1:
/// bfloat16, 2: int8; sums of 8-bit numbers stay int32).
void BM_DnnlMatmul(State& state) {
  using dnnl::memory;
  const memory::dim m = state.range(0), n = state.range(1), k = state.range(2);
  const auto type = std::array{memory::data_type::f32, memory::data_type::bf16, memory::data_type::s8}.at(
      static_cast<std::size_t>(state.range(3)));
  const auto sums = type == memory::data_type::s8 ? memory::data_type::s32 : memory::data_type::f32;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  using Tag = memory::format_tag;
  const dnnl::matmul::primitive_desc description(
      {{{m, k}, type, Tag::ab}, {{k, n}, type, Tag::any}, {{m, n}, sums, Tag::ab}}, engine);
  memory a(description.src_desc(), engine), w({{k, n}, type, Tag::ba}, engine),
      packed(description.weights_desc(), engine), c(description.dst_desc(), engine);
  std::memset(a.get_data_handle(), 1, a.get_desc().get_size());
  std::memset(w.get_data_handle(), 1, w.get_desc().get_size());
  dnnl::reorder(w, packed).execute(stream, w, packed);
  const dnnl::matmul product(description);
  for (auto _ : state) {
    product.execute(stream, {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, c}});
    stream.wait();
  }
  state.SetLabel(description.impl_info_str());
  count_flops(state, 2.0 * static_cast<double>(m * n * k));
}
BENCHMARK(BM_DnnlMatmul)
    ->ArgNames({"m", "n", "k", "type"})
    ->ArgsProduct({{2048}, {2048}, {2048}, {0, 1, 2}})
    ->ArgsProduct({{2048}, {8640}, {3200}, {0, 1, 2}})
    ->ArgsProduct({{2048}, {3200}, {8640}, {1, 2}})
    ->ArgsProduct({{2048}, {1024}, {288}, {1, 2}})
    ->ArgsProduct({{2048}, {768}, {2048}, {1, 2}})
    ->UseRealTime();
#endif

// ---- Attention and search
// ------------------------------------------------------------------------------------------------------

/// A memory of `entries` bfloat16 entries in blocks of 2048 for each of `kv_heads`.
struct TestMemory {
  TestMemory(std::size_t entries, std::size_t kv_heads, std::size_t head_dim) {
    const std::size_t blocks_per_head = entries / kBlock;
    const auto row = random_floats(kBlock * head_dim);
    for (std::size_t i = 0; i < kv_heads * blocks_per_head; ++i) {
      auto keys = Buffer<BFloat16>::zeroed(key_elements(kBlock, head_dim, DType::bf16));
      write_keys(keys.data(), 0, row.data(), head_dim, kBlock, head_dim);
      Buffer<BFloat16> values(kBlock * head_dim);
      for (std::size_t e = 0; e < values.size(); ++e) values.data()[e] = from_float<BFloat16>(row[e]);
      blocks.push_back({keys.data(), values.data(), kBlock, DType::bf16});
      storage.push_back(std::move(keys));
      storage.push_back(std::move(values));
    }
    view = {blocks.data(), {kv_heads, blocks_per_head}};
  }
  static constexpr std::size_t kBlock = 2048;
  std::vector<Buffer<BFloat16>> storage;
  std::vector<EntryBlock> blocks;
  View<const EntryBlock, 2> view;
};

/// Arguments: query tokens, entries, heads, kv heads, head_dim, instruction set. Queries are bfloat16 values.
void BM_AttendMemory(State& state) {
  const auto arg = [&](int i) { return static_cast<std::size_t>(state.range(i)); };
  CpuExec exec(available_threads(), best_or(static_cast<int>(state.range(5))));
  const TestMemory memory(arg(1), arg(3), arg(4));
  auto q = random_floats(arg(0) * arg(2) * arg(4));
  for (float& x : q) x = to_float(from_float<BFloat16>(x));
  PartialBuffer buffer;
  const AttentionPartial out = buffer.get(arg(0), arg(2), arg(4));
  for (auto _ : state) attend(exec, {q.data(), {arg(0), arg(2), arg(4)}}, memory.view, 0.1F, Visibility::all(), out);
  state.SetLabel(exec.micro().name);
  count_flops(state, 4.0 * static_cast<double>(arg(0) * arg(1) * arg(2) * arg(4)));
  state.SetBytesProcessed(static_cast<std::int64_t>(4 * arg(1) * arg(3) * arg(4)) * state.iterations());
}
BENCHMARK(BM_AttendMemory)
    ->ArgNames({"tokens", "entries", "heads", "kv_heads", "head_dim", "set"})
    ->ArgsProduct({{2048}, {2048, 8192, 65536}, {2}, {2}, {64, 100}, {3, 4}})
    ->ArgsProduct({{2048}, {32768}, {8}, {2}, {128}, {3, 4}})
    ->ArgsProduct({{2048}, {32768}, {8}, {4}, {8}, {3, 4}})
    ->ArgsProduct({{1}, {262144}, {12}, {12}, {64}, {3, 4}})
    ->ArgsProduct({{1}, {262144}, {8}, {2}, {128}, {3, 4}})
    ->UseRealTime();

/// Arguments: query tokens, entries, heads, kv heads, head_dim, k, instruction set. Queries are bfloat16 values.
void BM_ExactTopK(State& state) {
  const auto arg = [&](int i) { return static_cast<std::size_t>(state.range(i)); };
  CpuExec exec(available_threads(), best_or(static_cast<int>(state.range(6))));
  const TestMemory memory(arg(1), arg(3), arg(4));
  auto q = random_floats(arg(0) * arg(2) * arg(4));
  for (float& x : q) x = to_float(from_float<BFloat16>(x));
  std::vector<std::int64_t> ids(arg(0) * arg(2) * arg(5));
  std::vector<float> scores(ids.size());
  for (auto _ : state) {
    top_k_scan(exec, {q.data(), {arg(0), arg(2), arg(4)}}, memory.view, {ids.data(), {arg(0), arg(2), arg(5)}},
               {scores.data(), {arg(0), arg(2), arg(5)}});
  }
  count_flops(state, 2.0 * static_cast<double>(arg(0) * arg(1) * arg(2) * arg(4)));
  state.SetBytesProcessed(static_cast<std::int64_t>(2 * arg(1) * arg(3) * arg(4)) * state.iterations());
}
BENCHMARK(BM_ExactTopK)
    ->ArgNames({"tokens", "entries", "heads", "kv_heads", "head_dim", "k", "set"})
    ->ArgsProduct({{2048}, {262144}, {1}, {1}, {64, 100, 128}, {32, 128}, {4}})
    ->ArgsProduct({{512}, {262144}, {1}, {1}, {64}, {32}, {3}})
    ->ArgsProduct({{1}, {262144}, {12}, {12}, {64}, {32, 128}, {3, 4}})
    ->UseRealTime();

/// FAISS's exact search of the same keys in float32, a query for each head, heads side by side. Arguments: entries,
/// heads, head_dim, k.
void BM_FaissFlat(State& state) {
  const auto arg = [&](int i) { return static_cast<std::size_t>(state.range(i)); };
  ThreadPool pool(available_threads());
  const auto keys = random_floats(arg(0) * arg(2));
  std::vector<faiss::IndexFlatIP> indexes(arg(1), faiss::IndexFlatIP(static_cast<faiss::Index::idx_t>(arg(2))));
  for (faiss::IndexFlatIP& index : indexes) index.add(static_cast<faiss::Index::idx_t>(arg(0)), keys.data());
  const auto q = random_floats(arg(1) * arg(2));
  std::vector<faiss::Index::idx_t> ids(arg(1) * arg(3));
  std::vector<float> scores(ids.size());
  for (auto _ : state) {
    pool.run(arg(1), [&](std::size_t head, std::size_t) {
      omp_set_num_threads(1);
      indexes[head].search(1, q.data() + head * arg(2), static_cast<faiss::Index::idx_t>(arg(3)),
                           scores.data() + head * arg(3), ids.data() + head * arg(3));
    });
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(4 * arg(0) * arg(1) * arg(2)) * state.iterations());
}
BENCHMARK(BM_FaissFlat)
    ->ArgNames({"entries", "heads", "head_dim", "k"})
    ->ArgsProduct({{262144}, {12}, {64}, {32, 128}})
    ->UseRealTime();

// ---- The next token
// ------------------------------------------------------------------------------------------------------------

/// Logits spread about as a language model's.
std::vector<float> random_logits(std::size_t vocab) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> values(vocab);
  for (float& value : values) value = normal(random);
  return values;
}

constexpr std::array<Draw, 3> kDraws = {Draw{}, Draw{.temperature = 1}, {.temperature = 1, .top_k = 40, .top_p = 0.9F}};

/// Arguments: vocabulary, way: greedy, at a temperature, and that with top-k 40 and top-p 0.9.
void BM_ChooseToken(State& state) {
  CpuExec exec(1);
  const auto logits = random_logits(static_cast<std::size_t>(state.range(0)));
  const Draw& draw = kDraws.at(static_cast<std::size_t>(state.range(1)));
  std::mt19937_64 random(1);
  for (auto _ : state) benchmark::DoNotOptimize(choose_token(exec, logits, draw, {}, random()));
}
BENCHMARK(BM_ChooseToken)->ArgNames({"vocab", "way"})->ArgsProduct({{32000, 128256}, {0, 1, 2}});

/// The yardstick: all candidates sorted. Arguments likewise.
void BM_SortTokens(State& state) {
  const auto logits = random_logits(static_cast<std::size_t>(state.range(0)));
  const Draw& draw = kDraws.at(static_cast<std::size_t>(state.range(1)));
  std::mt19937_64 random(1);
  std::vector<std::pair<float, std::size_t>> all;
  const auto weight_of_first = [&](std::size_t count) {
    double total = 0;
    for (std::size_t i = 0; i < count; ++i) total += static_cast<double>(all[i].first);
    return total;
  };
  for (auto _ : state) {
    all.clear();
    for (std::size_t id = 0; id < logits.size(); ++id) all.emplace_back(-logits[id], id);
    if (draw.temperature == 0) {
      benchmark::DoNotOptimize(std::min_element(all.begin(), all.end()));
      continue;
    }
    std::sort(all.begin(), all.end());
    if (draw.top_k > 0) all.resize(draw.top_k);
    const float best = all.front().first;
    for (auto& [score, id] : all) score = std::exp((best - score) / draw.temperature);
    const double wanted = static_cast<double>(draw.top_p) * weight_of_first(all.size());
    std::size_t kept = 0;
    for (double reached = 0; kept < all.size() && reached < wanted; ++kept) {
      reached += static_cast<double>(all[kept].first);
    }
    double rest = static_cast<double>(random()) * 0x1p-64 * weight_of_first(kept);
    std::size_t chosen = 0;
    while (chosen + 1 < kept && rest >= static_cast<double>(all[chosen].first)) {
      rest -= static_cast<double>(all[chosen++].first);
    }
    benchmark::DoNotOptimize(all[chosen].second);
  }
}
BENCHMARK(BM_SortTokens)->ArgNames({"vocab", "way"})->ArgsProduct({{32000, 128256}, {0, 1, 2}});

}  // namespace
}  // namespace memlane

BENCHMARK_MAIN();
