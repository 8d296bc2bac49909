#include <set>

#include "tests/kernels/kernel_fixture.h"

namespace memlane::testing {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::f16, DType::bf16};

TEST(KeyPanels, GiveBackTheKeysThatWereWritten) {
  reference::Random random(5);
  for (const DType dtype : kTypes) {
    for (const std::size_t head_dim : {2, 8, 64, 100}) {
      for (const std::size_t count : {1, 31, 32, 33, 97}) {
        const RandomEntries entries(random, 1, head_dim, {count}, dtype);
        std::vector<float> key(head_dim);
        for (std::size_t i = 0; i < count; ++i) {
          read_key(entries.blocks()[0][0], i, head_dim, key.data());
          EXPECT_EQ(row_of(key.data(), head_dim), entries.truth(0).keys[i]);
        }
      }
    }
  }
}

TEST(KeyPanels, GrowByPiecesAsByOne) {
  reference::Random random(6);
  constexpr std::size_t kHeadDim = 6, kCount = 75, kStride = 11;
  const std::vector<float> keys = random.floats(kCount * kStride);
  std::vector<BFloat16> whole(key_elements(kCount, kHeadDim, DType::bf16));
  std::vector<BFloat16> pieces(whole.size());
  write_keys(whole.data(), 0, keys.data(), kStride, kCount, kHeadDim);
  for (std::size_t at = 0, size = 1; at < kCount; at += size, size = std::min<std::size_t>(kCount - at, size + 3)) {
    write_keys(pieces.data(), at, keys.data() + at * kStride, kStride, size, kHeadDim);
  }
  EXPECT_EQ(whole, pieces);
}

TEST(KeyPanels, KeepEveryElementApartAndTheRestZero) {
  for (const DType dtype : kTypes) {
    for (const std::size_t head_dim : {1, 2, 3, 7}) {
      std::set<std::size_t> offsets;
      for (std::size_t entry = 0; entry < 40; ++entry) {
        for (std::size_t d = 0; d < head_dim; ++d) offsets.insert(key_offset(entry, d, head_dim, dtype));
      }
      EXPECT_EQ(offsets.size(), 40 * head_dim);
      EXPECT_LT(*offsets.rbegin(), key_elements(40, head_dim, dtype));
    }
  }
}

}  // namespace
}  // namespace memlane::testing
