#include "memory/cuda/entry_pieces.h"

#include <gtest/gtest.h>

#include "kernels/cuda/array.h"
#include "tests/reference/random_values.h"

namespace memlane {
namespace {

const EntryShape kShape{{1, 4, 5}, 2, 10, DType::bf16};

TEST(EntryPieces, HoldAsManyWindowsAsFit) {
  const std::size_t window = layer_bytes(kShape, 64);
  const std::vector<std::size_t> counts(7, 64);
  const auto cut = [&](std::size_t piece, std::size_t resident) {
    return cut_into_pieces(kShape, counts, piece, resident);
  };
  EXPECT_EQ(cut(3 * window, 0), (std::vector<EntryPiece>{{0, 3}, {3, 6}, {6, 7}}));
  EXPECT_EQ(cut(4 * window - 1, 0), (std::vector<EntryPiece>{{0, 3}, {3, 6}, {6, 7}}));
  EXPECT_EQ(cut(1, 0).size(), 7U) << "at least one window each";
  const std::size_t of_all_layers = device_bytes(kShape.segment_bytes(64)), piece_of_all_layers = 3 * of_all_layers;
  EXPECT_EQ(cut(3 * window, piece_of_all_layers), (std::vector<EntryPiece>{{0, 3, true}, {3, 6}, {6, 7}}));
  EXPECT_EQ(cut(3 * window, piece_of_all_layers - 1), (std::vector<EntryPiece>{{0, 3}, {3, 6}, {6, 7}}))
      << "a small piece behind a large one that does not fit stays on the host too";
  EXPECT_EQ(cut(3 * window, 7 * of_all_layers), (std::vector<EntryPiece>{{0, 3, true}, {3, 6, true}, {6, 7, true}}));
  EXPECT_TRUE(cut_into_pieces(kShape, {}, window, 0).empty());
}

TEST(EntryPieces, AreTheBytesOfALayerInASegment) {
  for (const std::size_t count : {1, 31, 64, 65}) {
    EXPECT_EQ(layer_bytes(kShape, count) * kShape.layers.size(), kShape.segment_bytes(count));
  }
}

TEST(EntryPieces, CountPagesThatTheDeviceHandsOut) {
  constexpr std::size_t kMiB = std::size_t{1} << 20;
  EXPECT_EQ(device_bytes(0), 0U);
  EXPECT_EQ(device_bytes(kMiB), kMiB);
  EXPECT_EQ(device_bytes(kMiB + 1), 2 * kMiB) << "no two fit in a page";
  EXPECT_EQ(device_bytes(kMiB / 2 + 64), 2 * kMiB / 3) << "three share a page";
  EXPECT_EQ(device_bytes(2 * kMiB), 2 * kMiB);
  EXPECT_EQ(device_bytes(2 * kMiB + 1), 4 * kMiB);
  const EntryShape large{{1}, 8, 64, DType::bf16};
  const std::vector<std::size_t> counts(4, 600);  // a little above 1 MiB
  const std::size_t all = 4 * large.segment_bytes(600);
  EXPECT_FALSE(cut_into_pieces(large, counts, all, all).front().resident);
  EXPECT_TRUE(cut_into_pieces(large, counts, all, 8 * kMiB).front().resident);
}

TEST(EntryPieces, EndWhereTheyEndedWhateverComesLaterOrIsResident) {
  reference::Random random(1);
  for (int round = 0; round < 500; ++round) {
    std::vector<std::size_t> counts(random.size(1, 20));
    for (std::size_t& count : counts) count = random.size(1, 130);
    const std::size_t piece = random.size(1, 5) * layer_bytes(kShape, 64);
    const auto all = cut_into_pieces(kShape, counts, piece, 0);
    std::size_t end = 0;
    for (const EntryPiece& each : all) {
      ASSERT_EQ(each.begin, end);
      ASSERT_GT(each.end, each.begin);
      end = each.end;
    }
    ASSERT_EQ(end, counts.size());
    const std::size_t resident_bytes = random.size(0, 20) * kShape.segment_bytes(64);
    const std::span<const std::size_t> fewer = std::span(counts).first(random.size(1, counts.size()));
    const auto some = cut_into_pieces(kShape, fewer, piece, resident_bytes);
    std::size_t resident = 0;
    bool before = true;
    for (std::size_t i = 0; i < some.size(); ++i) {
      ASSERT_EQ(some[i].begin, all[i].begin);
      ASSERT_EQ(some[i].end, std::min(all[i].end, fewer.size()));
      ASSERT_TRUE(before || !some[i].resident) << "resident ones come first";
      before = some[i].resident;
      for (std::size_t window = some[i].begin; some[i].resident && window < some[i].end; ++window) {
        resident += device_bytes(kShape.segment_bytes(counts[window]));
      }
    }
    ASSERT_LE(resident, resident_bytes);
  }
}

}  // namespace
}  // namespace memlane
