// Index arithmetic that GPU kernels and their launches share.

#include <gtest/gtest.h>

#include "kernels/cuda/tiles.h"
#include "kernels/cuda/visibility.h"
#include "kernels/entries.h"
#include "tests/reference/random_values.h"

namespace memlane::testing {
namespace {

TEST(CudaTiles, FindKeysWhereTheHostPutsThem) {
  for (const std::size_t head_dim : {2, 16, 100}) {
    for (std::size_t entry = 0; entry < 130; ++entry) {
      for (std::size_t d = 0; d < head_dim; ++d) {
        ASSERT_EQ(2 * cuda::key_unit(entry, d / 2, head_dim / 2) + d % 2, key_offset(entry, d, head_dim, DType::bf16));
      }
    }
  }
}

/// Blocks of given sizes of two heads, told apart by their addresses.
std::vector<cuda::Block> table_of(const std::vector<std::uint32_t>& counts, const std::uint32_t* keys) {
  std::vector<cuda::Block> table;
  for (int head = 0; head < 2; ++head) {
    cuda::Block block;
    for (const std::uint32_t count : counts) {
      block.keys = keys++;
      block.count = count;
      table.push_back(block);
      block.first_tile += cuda::tiles_for(count);
      block.first_entry += count;
    }
  }
  return table;
}

TEST(CudaTiles, AreWalkedFromAnyOfThem) {
  const std::vector<std::vector<std::uint32_t>> cases = {{64}, {1}, {0, 0, 65, 0, 128, 1, 0}, {200, 3, 64}, {0, 1, 0}};
  const std::uint32_t keys[64] = {};
  for (const auto& counts : cases) {
    const std::vector<cuda::Block> table = table_of(counts, keys);
    cuda::Entries entries;
    entries.blocks = table.data();
    entries.kv_heads = 2;
    entries.block_count = static_cast<std::uint32_t>(counts.size());
    std::vector<std::pair<std::size_t, std::uint32_t>> tiles;  // block and first entry, by the definition
    for (std::size_t block = 0; block < counts.size(); ++block) {
      for (std::uint32_t first = 0; first < counts[block]; first += 64) tiles.emplace_back(block, first);
    }
    entries.tiles = static_cast<std::uint32_t>(tiles.size());
    for (std::uint32_t head = 0; head < 2; ++head) {
      for (std::uint32_t start = 0; start < tiles.size(); ++start) {
        cuda::Cursor at(entries, head, start);
        for (std::uint32_t tile = start; tile < tiles.size(); ++tile, at.advance()) {
          ASSERT_EQ(at.get().keys, keys + head * counts.size() + tiles[tile].first);
          ASSERT_EQ(at.first_entry(), tiles[tile].second);
        }
      }
    }
    std::uint32_t entry = 0;
    for (std::uint32_t block = 0; block < counts.size(); ++block) {
      for (std::uint32_t i = 0; i < counts[block]; ++i, ++entry) {
        ASSERT_EQ(cuda::block_of_entry(table.data(), entries.block_count, entry), block);
      }
    }
  }
}

TEST(CudaTiles, SeeWhatVisibilitySees) {
  reference::Random random(1);
  for (int round = 0; round < 2000; ++round) {
    Visibility visibility{round % 7 != 0, random.size(0, 100), random.size(0, 60)};
    if (round % 2 == 0) visibility.max_distance = visibility.min_distance + random.size(0, 50);
    if (round % 3 == 0) visibility.first_entry = random.size(0, 50);
    if (round % 5 == 0) visibility.end_entry = random.size(0, 90);
    const cuda::Band band = cuda::band_of(visibility);
    const std::size_t count = random.size(0, 140);
    for (std::uint32_t i = 0; i < 40; ++i) {
      const Visibility::Range expected = visibility.seen_by(i, count);
      const cuda::Range found = band.seen_by(i, static_cast<std::uint32_t>(count));
      ASSERT_EQ(found.end - found.begin, expected.end - expected.begin);
      if (found.end > found.begin) {
        ASSERT_EQ(found.begin, expected.begin);
      }
    }
  }
}

TEST(CudaTiles, OfABlockOfRowsHoldAllThatItsRowsSee) {
  reference::Random random(2);
  for (int round = 0; round < 500; ++round) {
    const auto count = static_cast<std::uint32_t>(random.size(1, 700));
    const std::uint32_t keys[2] = {};
    const std::vector<cuda::Block> table = table_of({count}, keys);
    cuda::Entries entries;
    entries.blocks = table.data();
    entries.tiles = cuda::tiles_for(count);
    cuda::Band band;
    band.on = true;
    band.first_position = static_cast<std::uint32_t>(random.size(0, 500));
    if (round % 2 == 0) band.min_distance = static_cast<std::uint32_t>(random.size(0, 300));
    if (round % 3 == 0) band.max_distance = band.min_distance + static_cast<std::uint32_t>(random.size(0, 200));
    const cuda::Rows rows{100, 3, 3};
    const auto first = static_cast<std::uint32_t>(random.size(0, 290));
    const auto end = static_cast<std::uint32_t>(random.size(first + 1, 300));
    const cuda::Range tiles = cuda::seen_tiles(entries, band, rows, first, end);
    ASSERT_LE(tiles.end, entries.tiles);
    for (std::uint32_t row = first; row < end; ++row) {
      const cuda::Range seen = band.seen_by(rows.token(row), count);
      if (seen.begin >= seen.end) continue;
      ASSERT_LE(tiles.begin * cuda::kTileEntries, seen.begin);
      ASSERT_GE(tiles.end * cuda::kTileEntries, seen.end);
    }
  }
}

TEST(CudaTiles, AreCutIntoPiecesThatJoin) {
  for (const std::uint32_t size : {0U, 1U, 7U, 64U, 1000U}) {
    for (const std::uint32_t pieces : {1U, 2U, 13U, 64U}) {
      std::uint32_t end = 5;
      for (std::uint32_t piece = 0; piece < pieces; ++piece) {
        const cuda::Range range = cuda::piece_of({5, 5 + size}, piece, pieces);
        ASSERT_EQ(range.begin, end);
        ASSERT_LE(range.end - range.begin, size / pieces + 1);
        end = range.end;
      }
      ASSERT_EQ(end, 5 + size);
    }
  }
}

TEST(CudaTiles, AreSplitOnlyWhereBlocksAreFewAndEntriesMany) {
  EXPECT_EQ(cuda::splits_for(1000, 10000, 528), 1U);
  EXPECT_EQ(cuda::splits_for(32, 16384, 528), 17U);
  EXPECT_EQ(cuda::splits_for(1, 16384, 528), 64U);
  EXPECT_EQ(cuda::splits_for(1, 9, 528), 2U);
  EXPECT_EQ(cuda::splits_for(1, 3, 528), 1U);
  EXPECT_EQ(cuda::splits_for(1, 0, 528), 1U);
}

TEST(CudaTiles, AreSplitIntoNoMoreRowsThanIsSaid) {
  reference::Random random(3);
  for (int round = 0; round < 5000; ++round) {
    const std::uint64_t block_rows = round % 2 == 0 ? 16 : 128, wanted = random.size(1, 600);
    const std::uint64_t kv_heads = random.size(1, 40), rows_of_head = random.size(1, 4000);
    const std::uint64_t blocks = (rows_of_head + block_rows - 1) / block_rows * kv_heads;
    const std::uint64_t splits = cuda::splits_for(blocks, static_cast<std::uint32_t>(random.size(0, 3000)), wanted);
    const std::uint64_t rows = rows_of_head * kv_heads;
    if (splits > 1) {
      ASSERT_LE(splits * rows, cuda::most_split_rows(rows, block_rows, wanted));
    }
  }
}

}  // namespace
}  // namespace memlane::testing
