#include "runtime/local_cache.h"

#include <gtest/gtest.h>

#include "tests/reference/numbers.h"
#include "tests/reference/random_values.h"

namespace memlane {
namespace {

constexpr std::size_t kWindow = 40, kKvHeads = 3, kHeadDim = 6, kRow = kKvHeads * kHeadDim;

ModelConfig config() {
  ModelConfig result;
  result.num_layers = 2;
  result.num_kv_heads = kKvHeads;
  result.head_dim = kHeadDim;
  return result;
}

MemorySettings settings() {
  return {.mem_layers = {1}, .window = kWindow, .last_context_length = 8, .memory_window = kWindow};
}

/// A cache that is given the rows of random keys and values in pieces.
class Filled {
 public:
  Filled(DType compute, const std::vector<std::size_t>& pieces, const MemorySettings& how = settings())
      : cache(config(), how, compute) {
    reference::Random random(4);
    keys = random.floats(kWindow * kRow);
    raw_keys = random.floats(kWindow * kRow);
    values = random.floats(kWindow * kRow);
    for (const std::size_t piece : pieces) add(piece);
  }
  void add(std::size_t tokens) {
    const std::size_t at = cache.size(LayerKind::plain) * kRow;
    const auto rows = [&](const std::vector<float>& from) {
      return View<const float, 3>(from.data() + at, {tokens, kKvHeads, kHeadDim});
    };
    for (std::size_t layer = 0; layer < 2; ++layer) cache.store(exec, layer, rows(keys), rows(values));
    for (std::size_t layer = 0; layer < 2; ++layer) cache.store_unrotated(layer, rows(raw_keys), rows(values));
    cache.advance(tokens);
  }
  CpuExec exec{2};
  LocalCache cache;
  std::vector<float> keys, raw_keys, values;
};

TEST(LocalCache, HoldsKeysAndValuesInOrderHoweverTheyCame) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    for (const std::vector<std::size_t>& pieces : {std::vector<std::size_t>{37}, {1, 30, 1, 1, 4}}) {
      Filled filled(compute, pieces);
      const auto blocks = filled.cache.blocks(1, 0);
      for (std::size_t head = 0; head < kKvHeads; ++head) {
        ASSERT_EQ(blocks[head][0].count, 37U);
        for (std::size_t i = 0; i < 37; ++i) {
          float key[kHeadDim];
          read_key(blocks[head][0], i, kHeadDim, key);
          for (std::size_t d = 0; d < kHeadDim; ++d) {
            EXPECT_EQ(key[d], reference::rounded(filled.keys[i * kRow + head * kHeadDim + d], compute));
          }
        }
      }
    }
  }
}

TEST(LocalCache, CountsPendingTokensOnlyWhenAsked) {
  Filled filled(DType::f32, {5});
  EXPECT_EQ(filled.cache.blocks(0, 0)[0][0].count, 5U);
  EXPECT_EQ(filled.cache.blocks(0, 3)[2][0].count, 8U);
  EXPECT_EQ(filled.cache.size(LayerKind::plain), 5U);
}

TEST(LocalCache, MovesUnrotatedKeysToMemory) {
  Filled filled(DType::bf16, {9, 20});
  const EntryShape shape{{1}, kKvHeads, kHeadDim, DType::f32};
  const Segment segment = filled.cache.to_segment(filled.exec, shape);
  EXPECT_EQ(segment.count(), 29U);
  for (std::size_t i = 0; i < 29; ++i) {
    float key[kHeadDim];
    read_key(segment.block(0, 2), i, kHeadDim, key);
    for (std::size_t d = 0; d < kHeadDim; ++d) EXPECT_EQ(key[d], filled.raw_keys[i * kRow + 2 * kHeadDim + d]);
    EXPECT_EQ(static_cast<const float*>(segment.block(0, 0).values)[i * kHeadDim], filled.values[i * kRow]);
  }
}

TEST(LocalCache, StartsOverWhenCleared) {
  Filled filled(DType::f32, {kWindow});
  filled.cache.clear(LayerKind::plain);
  filled.cache.clear(LayerKind::memory);
  EXPECT_EQ(filled.cache.size(LayerKind::plain), 0U);
  filled.add(3);
  EXPECT_EQ(filled.cache.to_segment(filled.exec, {{1}, kKvHeads, kHeadDim, DType::f32}).count(), 3U);
}

TEST(LocalCache, KeepsTheFirstAndTheLastTokensOfPlainLayers) {
  MemorySettings overlapping = settings();
  overlapping.overlap = 1;  // plain layers then keep un-rotated keys
  Filled filled(DType::f32, {9, 20}, overlapping);
  filled.cache.keep(2, 5);
  EXPECT_EQ(filled.cache.size(LayerKind::plain), 7U);
  EXPECT_EQ(filled.cache.size(LayerKind::memory), 29U);
  const auto* values = static_cast<const float*>(filled.cache.blocks(0, 0)[1][0].values);
  const View<const float, 3> keys = filled.cache.unrotated(0, 0);
  for (std::size_t i = 0; i < 7; ++i) {
    const std::size_t from = i < 2 ? i : i + 22;
    for (std::size_t d = 0; d < kHeadDim; ++d) {
      EXPECT_EQ(values[i * kHeadDim + d], filled.values[from * kRow + kHeadDim + d]);
      EXPECT_EQ(keys.data()[i * kRow + kHeadDim + d], filled.raw_keys[from * kRow + kHeadDim + d]);
    }
  }
  filled.cache.keep(3, 4);
  EXPECT_EQ(filled.cache.size(LayerKind::plain), 7U) << "nothing to drop";
}

TEST(LocalCache, RefusesMoreThanItsWindow) {
  Filled filled(DType::f32, {kWindow - 1});
  EXPECT_THROW(filled.add(2), std::logic_error);
  EXPECT_THROW(filled.cache.advance(2), std::logic_error);
  EXPECT_EQ(filled.cache.size(LayerKind::plain), kWindow - 1);
}

}  // namespace
}  // namespace memlane
