// The attention kernel of the GPU, emulated, against the reference: what its indices, tiles, bands and pieces come to.

#include "kernels/cuda/attend_block.h"
#include "kernels/cuda/visibility.h"
#include "tests/kernels/cuda_entries.h"
#include "tests/kernels/emulated_warp.h"
#include "tests/kernels/kernel_fixture.h"

namespace memlane::testing {
namespace {

struct Shape {
  std::size_t tokens, kv_heads, group, head_dim;
  std::vector<std::size_t> counts;
  Visibility visibility = Visibility::all();
  std::uint32_t splits = 1;
  std::uint32_t limit = cuda::kAny;  // entries of the single block that count
};

template <class Tiles>
void emulate_blocks(const cuda::AttendTask& task) {
  const std::uint32_t row_blocks = (task.rows.count() + Tiles::kRows - 1) / Tiles::kRows;
  for (std::uint32_t split = 0; split < task.splits; ++split) {
    for (std::uint32_t head = 0; head < task.entries.kv_heads; ++head) {
      for (std::uint32_t block = 0; block < row_blocks; ++block) {
        run_block(Tiles::kWarps, cuda::AttendMemory<Tiles>::kBytes, [&](EmulatedWarp& warp, std::uint32_t* shared) {
          cuda::attend_block<Tiles>(warp, task, block, head, split, shared);
        });
      }
    }
  }
}

/// All blocks of threads of a call, then the merge of its pieces.
template <class Tiles>
void emulate(cuda::AttendTask task, OwnedPartial& out) {
  const std::size_t pairs = out.max.size();
  std::vector<float> sum(task.splits * out.sum.size(), NAN), max(task.splits * pairs, NAN), weight(max);
  task.sum = sum.data();
  task.max = max.data();
  task.weight = weight.data();
  emulate_blocks<Tiles>(task);
  run_block(1, 0, [&](EmulatedWarp& warp, std::uint32_t*) {
    for (std::size_t flat = 0; flat < pairs; ++flat) {
      cuda::merge_pieces(warp, task, flat, out.sum.data(), out.max.data(), out.weight.data());
    }
  });
}

template <class Tiles>
void emulate_and_compare(reference::Random& random, const Shape& shape) {
  const std::size_t heads = shape.kv_heads * shape.group;
  const RandomEntries entries(random, shape.kv_heads, shape.head_dim, shape.counts, DType::bf16);
  const BlockTable table(entries.blocks());
  std::vector<float> queries = random.floats(shape.tokens * heads * shape.head_dim, 2);
  for (float& x : queries) x = to_float(from_float<BFloat16>(x));
  const float scale = 1.0F / std::sqrt(static_cast<float>(shape.head_dim));
  cuda::AttendTask task;
  task.queries = queries.data();
  task.rows = {static_cast<std::uint32_t>(shape.tokens), static_cast<std::uint32_t>(heads),
               static_cast<std::uint32_t>(shape.group)};
  task.head_dim = static_cast<std::uint32_t>(shape.head_dim);
  task.entries = table.entries();
  task.entries.limit = shape.limit;
  if (shape.limit != cuda::kAny) task.entries.tiles = cuda::tiles_for(shape.limit);
  task.band = cuda::band_of(shape.visibility);
  task.scale = scale;
  task.splits = shape.splits;
  OwnedPartial partial(shape.tokens, heads, shape.head_dim);
  emulate<Tiles>(task, partial);

  for (std::size_t row = 0; row < shape.tokens * heads; ++row) {
    const reference::Row query = row_of(queries.data() + row * shape.head_dim, shape.head_dim);
    const reference::Entries& all = entries.truth(row % heads / shape.group);
    const std::size_t count = std::min<std::size_t>(all.keys.size(), shape.limit);
    const Visibility::Range seen = shape.visibility.seen_by(row / heads, count);
    std::vector<std::size_t> ids;
    for (std::size_t id = seen.begin; id < seen.end; ++id) ids.push_back(id);
    if (ids.empty()) {
      ASSERT_EQ(partial.weight[row], 0) << "row " << row << " sees nothing";
      ASSERT_EQ(partial.max[row], -INFINITY);
      ASSERT_EQ(partial.sum[row * shape.head_dim], 0);
      continue;
    }
    const reference::Partial truth = reference::partial_attention(query, all.chosen(ids), scale);
    ASSERT_NEAR(partial.max[row], truth.max, 1e-5) << "row " << row;
    // Weights are rounded to bfloat16: to one part in 2^9.
    ASSERT_NEAR(partial.weight[row] / truth.weight, 1, 0x1p-9 + 1e-5) << "row " << row;
    for (std::size_t d = 0; d < shape.head_dim; ++d) {
      const double out = partial.sum[row * shape.head_dim + d] / static_cast<double>(partial.weight[row]);
      ASSERT_NEAR(out, truth.output()[d], 0x1p-8 + 1e-5) << "row " << row << ", element " << d;
    }
  }
}

template <int Steps>
using OneWarp = cuda::TileShape<Steps, 1, 1>;
template <int Steps>
using FourWarps = cuda::TileShape<Steps, 4, 2>;

TEST(CudaAttend, EqualsTheReferenceForEveryHeadSize) {
  reference::Random random(1);
  for (const std::size_t head_dim : {2, 6, 16, 20, 30, 32}) {
    emulate_and_compare<OneWarp<2>>(random, {random.size(1, 9), 2, random.size(1, 4), head_dim, {70, 0, 64, 3, 0}});
    ASSERT_FALSE(HasFailure()) << "head_dim " << head_dim;
  }
  for (const std::size_t head_dim : {98, 100, 104, 112}) {
    emulate_and_compare<OneWarp<7>>(random, {3, 2, 2, head_dim, {100, 129}});
    ASSERT_FALSE(HasFailure()) << "head_dim " << head_dim;
  }
  emulate_and_compare<OneWarp<8>>(random, {2, 1, 2, 128, {65}});
}

TEST(CudaAttend, EqualsTheReferenceForManyRows) {
  reference::Random random(2);
  emulate_and_compare<FourWarps<7>>(random, {50, 2, 3, 100, {64, 65, 200}});
  emulate_and_compare<FourWarps<2>>(random, {300, 1, 1, 24, {1, 1, 1, 190, 63}});
}

// As launched for large heads where blocks have little shared memory.
TEST(CudaAttend, EqualsTheReferenceWithTwoWarps) {
  reference::Random random(8);
  emulate_and_compare<cuda::TileShape<8, 2, 2>>(random, {70, 1, 2, 128, {65, 130}});
}

TEST(CudaAttend, IsTheSameOverAnyNumberOfPieces) {
  reference::Random random(3);
  for (const std::uint32_t splits : {2U, 3U, 7U, 20U}) {  // 20: more than there are tiles
    emulate_and_compare<OneWarp<2>>(random, {4, 2, 2, 32, {400, 0, 65, 128, 300}, Visibility::all(), splits});
    ASSERT_FALSE(HasFailure()) << splits << " pieces";
  }
  Shape causal{150, 1, 2, 32, {400}, Visibility::causal_from(250), 3};
  emulate_and_compare<FourWarps<2>>(random, causal);
}

TEST(CudaAttend, SeesABandOfDistances) {
  reference::Random random(4);
  for (int round = 0; round < 40; ++round) {
    const std::size_t tokens = random.size(1, 150), first = random.size(0, 300);
    Shape shape{tokens, 1, random.size(1, 3), 16, {first + tokens}};
    shape.visibility = {true, first, round % 4 == 0 ? random.size(0, 300) : 0, Visibility::kAnyDistance, 0};
    if (round % 3 != 0) shape.visibility.max_distance = shape.visibility.min_distance + random.size(0, 160);
    if (round % 2 != 0) shape.visibility.first_entry = random.size(0, 40);
    if (round % 5 == 0) shape.visibility.end_entry = random.size(0, 60);
    shape.splits = static_cast<std::uint32_t>(random.size(1, 3));
    if (round % 2 == 0) {
      emulate_and_compare<FourWarps<2>>(random, shape);
    } else {
      emulate_and_compare<OneWarp<2>>(random, shape);
    }
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
}

// A local cache is a block with room for more entries than it holds.
TEST(CudaAttend, LeavesOutEntriesBeyondTheLimit) {
  reference::Random random(5);
  for (const std::uint32_t limit : {1U, 31U, 64U, 90U}) {
    Shape shape{1, 2, 2, 16, {200}};
    shape.limit = limit;
    shape.visibility = Visibility::causal_from(limit - 1);
    emulate_and_compare<OneWarp<2>>(random, shape);
    ASSERT_FALSE(HasFailure()) << "limit " << limit;
  }
}

/// A local cache with room for `room` entries, of which `held` and that of the pass's one token are there. Launched for
/// what there is, or for as much as there can be, with what there is on the device.
template <class Tiles>
OwnedPartial attended_to_cache(const std::vector<float>& queries, const cuda::Entries& cache, std::uint32_t held,
                               Visibility visibility, bool from_device) {
  constexpr std::uint64_t kWantedBlocks = 12;
  constexpr std::size_t kHeads = 4, kHeadDim = 20;
  const std::uint32_t on_device = held;
  cuda::AttendTask task;
  task.queries = queries.data();
  task.rows = {1, kHeads, static_cast<std::uint32_t>(kHeads) / cache.kv_heads};
  task.head_dim = kHeadDim;
  task.entries = cache;
  task.band = cuda::band_of(visibility);
  task.scale = 0.2F;
  task.wanted_splits = cuda::wanted_splits(cache.kv_heads, kWantedBlocks);
  const std::uint32_t room = cache.blocks->count;
  if (from_device) {
    task.entries.held = {&on_device, 12345, room};  // what the host knew when it launched
    task.entries.limit = 1;
    task.entries.tiles = 0;
    task.band.first_position = 0;
    task.splits = cuda::splits_of_tiles(cuda::tiles_for(room), task.wanted_splits);
  } else {
    task.entries.limit = held + 1;
    task.entries.tiles = cuda::tiles_for(held + 1);
    task.splits = cuda::splits_for(cache.kv_heads, task.entries.tiles, kWantedBlocks);
  }
  OwnedPartial partial(1, kHeads, kHeadDim);
  if (task.splits > 1) {
    emulate<Tiles>(task, partial);
    return partial;
  }
  task.sum = partial.sum.data();
  task.max = partial.max.data();
  task.weight = partial.weight.data();
  emulate_blocks<Tiles>(task);
  return partial;
}

TEST(CudaAttend, HasTheSameBitsLaunchedForTheWholeWindow) {
  reference::Random random(6);
  for (const std::uint32_t room : {40U, 700U, 1600U}) {
    const RandomEntries entries(random, 2, 20, {room}, DType::bf16);
    const BlockTable table(entries.blocks());
    for (const std::uint32_t held : {0U, 1U, 38U, 63U, 64U, 255U, 256U, 511U, 640U, 1100U, 1599U}) {
      if (held + 1 > room) continue;
      std::vector<Visibility> ways = {Visibility::causal_from(held), Visibility::causal_from(held)};
      ways[1].max_distance = random.size(0, 300);
      ways[1].first_entry = random.size(0, 40);
      ways.push_back({true, held, random.size(0, 300), Visibility::kAnyDistance, 0, random.size(0, 60)});
      for (const Visibility& way : ways) {
        const std::vector<float> queries = random.floats(4 * 20, 2);
        const auto with = [&](bool from_device) {
          return attended_to_cache<OneWarp<2>>(queries, table.entries(), held, way, from_device);
        };
        EXPECT_TRUE(with(true).same_bits_as(with(false))) << held << " of " << room;
      }
    }
  }
}

TEST(CudaPosition, CountsFromTheNumberOnTheDevice) {
  const std::uint32_t on_device = 70;
  const cuda::Position given(30), found(30, &on_device);
  EXPECT_EQ((given - 4).number().get(), 26U);
  EXPECT_EQ((found - 4).now(), 26U);
  EXPECT_EQ((found - 4).number().get(), 66U) << "as it is when it is read";
  EXPECT_EQ(found.number().get(), 70U);
  EXPECT_TRUE(30 <= found);
  EXPECT_FALSE(31 <= found);
}

}  // namespace
}  // namespace memlane::testing
