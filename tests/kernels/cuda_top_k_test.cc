// Exact search and attention to what it found as on the GPU, emulated, against the reference. Keys and queries are
// whole numbers, so that scores are exact and many are equal.

#include "kernels/cuda/selected_rows.h"
#include "kernels/cuda/top_k_block.h"
#include "tests/kernels/cuda_entries.h"
#include "tests/kernels/emulated_warp.h"
#include "tests/kernels/kernel_fixture.h"

namespace memlane::testing {
namespace {

struct Search {
  std::size_t tokens, kv_heads, group, head_dim;
  std::vector<std::size_t> counts;
  std::uint32_t k;
  std::uint32_t splits = 1;
};

struct Found {
  std::vector<std::int32_t> ids;
  std::vector<float> scores;
};

template <class Tiles>
Found emulate(cuda::TopKTask task) {
  const std::size_t rows = static_cast<std::size_t>(task.rows.tokens) * task.rows.heads;
  task.capacity = cuda::candidate_space(task.k);
  std::vector<float> scores(rows * task.splits * task.capacity, NAN);
  std::vector<std::uint32_t> found(scores.size(), 0xdeadbeefU), counts(rows * task.splits, 0xdeadbeefU);
  task.scores = scores.data();
  task.found = found.data();
  task.counts = counts.data();
  const std::uint32_t row_blocks = (task.rows.count() + Tiles::kRows - 1) / Tiles::kRows;
  for (std::uint32_t split = 0; split < task.splits; ++split) {
    for (std::uint32_t head = 0; head < task.entries.kv_heads; ++head) {
      for (std::uint32_t block = 0; block < row_blocks; ++block) {
        run_block(Tiles::kWarps, cuda::TopKMemory<Tiles>::kBytes, [&](EmulatedWarp& warp, std::uint32_t* shared) {
          cuda::top_k_block<Tiles>(warp, task, block, head, split, shared);
        });
      }
    }
  }
  Found result{std::vector<std::int32_t>(rows * task.k, -7), std::vector<float>(rows * task.k, NAN)};
  run_block(1, 0, [&](EmulatedWarp& warp, std::uint32_t*) {
    for (std::size_t row = 0; row < rows; ++row) {
      cuda::select_row(warp, task, row, result.ids.data(), result.scores.data());
    }
  });
  return result;
}

/// What selected entries contribute, against the reference over the same.
void compare_attention(const cuda::TopKTask& search, const Found& found, const RandomEntries& entries,
                       const std::vector<float>& queries) {
  const std::size_t heads = search.rows.heads, group = search.rows.group, head_dim = search.head_dim;
  OwnedPartial partial(search.rows.tokens, heads, head_dim);
  cuda::SelectedTask task;
  task.ids = found.ids.data();
  task.scores = found.scores.data();
  task.heads = search.rows.heads;
  task.group = search.rows.group;
  task.head_dim = search.head_dim;
  task.k = search.k;
  task.entries = search.entries;
  task.scale = 1.0F / 32;
  task.sum = partial.sum.data();
  task.max = partial.max.data();
  task.weight = partial.weight.data();
  run_block(1, 0, [&](EmulatedWarp& warp, std::uint32_t*) {
    for (std::size_t row = 0; row < partial.max.size(); ++row) cuda::attend_selected_row<2>(warp, task, row);
  });
  for (std::size_t row = 0; row < partial.max.size(); ++row) {
    std::vector<std::size_t> ids;
    for (std::size_t i = 0; i < task.k && found.ids[row * task.k + i] >= 0; ++i) {
      ids.push_back(static_cast<std::size_t>(found.ids[row * task.k + i]));
    }
    const auto truth = reference::partial_attention(row_of(queries.data() + row * head_dim, head_dim),
                                                    entries.truth(row % heads / group).chosen(ids), task.scale);
    ASSERT_NEAR(partial.max[row], truth.max, 1e-5);
    ASSERT_NEAR(partial.weight[row] / truth.weight, 1, 1e-5);
    for (std::size_t d = 0; d < head_dim; ++d) {
      ASSERT_NEAR(partial.sum[row * head_dim + d] / truth.weight, truth.sum[d] / truth.weight, 1e-5);
    }
  }
}

template <class Tiles>
void search_and_compare(reference::Random& random, const Search& search) {
  const std::size_t heads = search.kv_heads * search.group;
  const RandomEntries entries(random, search.kv_heads, search.head_dim, search.counts, DType::bf16, 3, true);
  const BlockTable table(entries.blocks());
  std::vector<float> queries = random.floats(search.tokens * heads * search.head_dim, 3);
  for (float& x : queries) x = std::round(x);
  cuda::TopKTask task;
  task.queries = queries.data();
  task.rows = {static_cast<std::uint32_t>(search.tokens), static_cast<std::uint32_t>(heads),
               static_cast<std::uint32_t>(search.group)};
  task.head_dim = static_cast<std::uint32_t>(search.head_dim);
  task.entries = table.entries();
  task.k = search.k;
  task.splits = search.splits;
  const Found found = emulate<Tiles>(task);
  for (std::size_t row = 0; row < search.tokens * heads; ++row) {
    const reference::Row query = row_of(queries.data() + row * search.head_dim, search.head_dim);
    reference::Row scores;
    for (const reference::Row& key : entries.truth(row % heads / search.group).keys) {
      scores.push_back(reference::dot(query, key));
    }
    const std::vector<std::size_t> truth = reference::top_k(scores, search.k);
    for (std::size_t i = 0; i < search.k; ++i) {
      const std::size_t at = row * search.k + i;
      ASSERT_EQ(found.ids[at], i < truth.size() ? static_cast<std::int32_t>(truth[i]) : -1) << "row " << row;
      ASSERT_EQ(found.scores[at], i < truth.size() ? static_cast<float>(scores[truth[i]]) : -INFINITY);
    }
  }
  compare_attention(task, found, entries, queries);
}

template <int Steps>
using OneWarp = cuda::TileShape<Steps, 1, 1>;
template <int Steps>
using FourWarps = cuda::TileShape<Steps, 4, 1>;

TEST(CudaTopK, FindsWhatTheReferenceFinds) {
  reference::Random random(1);
  for (const std::uint32_t k : {1U, 5U, 33U, 128U}) {
    for (const std::size_t head_dim : {2, 10, 32}) {
      search_and_compare<OneWarp<2>>(random, {3, 2, 2, head_dim, {500, 0, 64, 300, 1, 0}, k});
      ASSERT_FALSE(HasFailure()) << "k " << k << ", head_dim " << head_dim;
    }
  }
  search_and_compare<OneWarp<7>>(random, {1, 2, 4, 100, {2000}, 32});
}

TEST(CudaTopK, FindsAllWhereThereAreFewer) {
  reference::Random random(2);
  search_and_compare<OneWarp<2>>(random, {2, 1, 3, 8, {20, 1}, 50});
  search_and_compare<OneWarp<2>>(random, {1, 1, 1, 8, {70}, 70, 3});
}

TEST(CudaTopK, IsTheSameOverAnyNumberOfPieces) {
  reference::Random random(3);
  for (const std::uint32_t splits : {2U, 5U, 16U}) {
    search_and_compare<OneWarp<2>>(random, {2, 2, 2, 6, {700, 65, 0, 400}, 20, splits});
    ASSERT_FALSE(HasFailure()) << splits << " pieces";
  }
}

TEST(CudaTopK, FindsWhatTheReferenceFindsForManyRows) {
  reference::Random random(4);
  search_and_compare<FourWarps<2>>(random, {50, 1, 3, 12, {300, 300}, 7, 2});
  search_and_compare<FourWarps<7>>(random, {20, 2, 4, 100, {333}, 40});
}

// Rising scores pass every threshold, so that lists are cut again and again; equal ones never do.
TEST(CudaTopK, CutsListsThatFillUp) {
  constexpr std::size_t kCount = 3000;
  for (const int slope : {1, 0, -1}) {
    std::vector<float> keys(kCount * 2, 0.0F);
    for (std::size_t i = 0; i < kCount; ++i) keys[i * 2] = static_cast<float>(slope * static_cast<int>(i / 32));
    Buffer<std::byte> panels = Buffer<std::byte>::zeroed(key_elements(kCount, 2, DType::bf16) * 2);
    write_keys(reinterpret_cast<BFloat16*>(panels.data()), 0, keys.data(), 2, kCount, 2);
    const EntryBlock block{panels.data(), nullptr, kCount, DType::bf16};
    const BlockTable table(View<const EntryBlock, 2>(&block, {1, 1}));
    const float query[2] = {1, 1};
    cuda::TopKTask task;
    task.queries = query;
    task.rows = {1, 1, 1};
    task.head_dim = 2;
    task.entries = table.entries();
    task.k = 40;
    const Found found = emulate<OneWarp<2>>(task);
    for (std::size_t i = 0; i < 40; ++i) {
      // The last 24 entries share the highest score when it rises; the 16 oldest of the 32 before them fill up.
      const std::size_t rising = i < 16 ? kCount - 24 - 32 + i : kCount - 40 + i;
      EXPECT_EQ(found.ids[i], static_cast<std::int32_t>(slope > 0 ? rising : i)) << "slope " << slope;
    }
  }
}

/// What lists joined in order come to, against the best of all.
TEST(CudaTopK, JoinsWhatScansOfPiecesFound) {
  reference::Random random(5);
  for (int round = 0; round < 200; ++round) {
    const std::size_t k = random.size(1, 70), pieces = random.size(1, 5);
    reference::Row all;  // scores of all entries
    std::vector<std::int32_t> ids(k, -1);
    std::vector<float> scores(k, -INFINITY), both_scores(2 * k, NAN);
    std::vector<std::uint32_t> both(2 * k, 0xdeadbeefU);
    for (std::size_t piece = 0; piece < pieces; ++piece) {
      const std::size_t base = all.size(), count = random.size(0, 100);
      for (std::size_t i = 0; i < count; ++i) all.push_back(static_cast<double>(random.size(0, 20)));
      const reference::Row some(all.begin() + static_cast<std::ptrdiff_t>(base), all.end());
      const std::vector<std::size_t> best = reference::top_k(some, k);
      std::vector<std::int32_t> more(k, -1);
      std::vector<float> more_scores(k, -INFINITY);
      for (std::size_t i = 0; i < best.size(); ++i) {
        more[i] = static_cast<std::int32_t>(best[i]);
        more_scores[i] = static_cast<float>(some[best[i]]);
      }
      cuda::JoinTask task{ids.data(),
                          scores.data(),
                          more.data(),
                          more_scores.data(),
                          static_cast<std::uint32_t>(base),
                          static_cast<std::uint32_t>(k),
                          both_scores.data(),
                          both.data()};
      run_block(1, 0, [&](EmulatedWarp& warp, std::uint32_t*) { cuda::join_row(warp, task, 0); });
    }
    const std::vector<std::size_t> truth = reference::top_k(all, k);
    for (std::size_t i = 0; i < k; ++i) {
      ASSERT_EQ(ids[i], i < truth.size() ? static_cast<std::int32_t>(truth[i]) : -1) << "round " << round;
      ASSERT_EQ(scores[i], i < truth.size() ? static_cast<float>(all[truth[i]]) : -INFINITY);
    }
  }
}

TEST(CudaTopK, AttendsToGatheredValuesWithTheSameBits) {
  reference::Random random(6);
  constexpr std::size_t kTokens = 3, kHeads = 4, kGroup = 2, kHeadDim = 20, kBest = 40;
  const RandomEntries entries(random, kHeads / kGroup, kHeadDim, {30, 0, 65}, DType::bf16);
  const BlockTable table(entries.blocks());
  std::vector<std::int32_t> ids;
  std::vector<BFloat16> gathered(kTokens * kHeads * kBest * kHeadDim, BFloat16{0x7fff});  // NaN where nothing is
  for (std::size_t row = 0; row < kTokens * kHeads; ++row) {
    const std::size_t some = random.size(1, kBest);
    for (std::size_t i = 0; i < kBest; ++i) {
      ids.push_back(i < some ? static_cast<std::int32_t>(2 * i + row % 3) : -1);
      if (i >= some) continue;
      const reference::Row& value = entries.truth(row % kHeads / kGroup).values[2 * i + row % 3];
      for (std::size_t d = 0; d < kHeadDim; ++d) {
        gathered[(row * kBest + i) * kHeadDim + d] = from_float<BFloat16>(static_cast<float>(value[d]));
      }
    }
  }
  const std::vector<float> scores = random.floats(ids.size(), 3);
  OwnedPartial partials[2] = {{kTokens, kHeads, kHeadDim}, {kTokens, kHeads, kHeadDim}};
  for (const bool side_by_side : {false, true}) {
    OwnedPartial& out = partials[side_by_side ? 1 : 0];
    cuda::SelectedTask task;
    task.ids = ids.data();
    task.scores = scores.data();
    task.heads = kHeads;
    task.group = kGroup;
    task.head_dim = kHeadDim;
    task.k = kBest;
    if (!side_by_side) task.entries = table.entries();
    if (side_by_side) task.gathered = reinterpret_cast<const std::uint32_t*>(gathered.data());
    task.scale = 0.2F;
    task.sum = out.sum.data();
    task.max = out.max.data();
    task.weight = out.weight.data();
    run_block(1, 0, [&](EmulatedWarp& warp, std::uint32_t*) {
      for (std::size_t row = 0; row < out.max.size(); ++row) cuda::attend_selected_row<2>(warp, task, row);
    });
  }
  EXPECT_TRUE(partials[0].same_bits_as(partials[1]));
}

}  // namespace
}  // namespace memlane::testing
