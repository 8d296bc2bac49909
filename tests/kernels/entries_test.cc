#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "kernels/block_begins.h"
#include "kernels/write_entries.h"
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

TEST(KeyPanels, HaveTheBitsOfKeysWrittenOneByOne) {
  CpuExec exec(2, detect_instruction_set());
  constexpr std::size_t kHeads = 3;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const std::size_t head_dim : {1, 6, 7, 64, 100}) {
      for (const std::size_t first : {0, 5, 31, 64}) {
        for (const std::size_t count : {1, 3, 40, 600}) {
          std::vector<float> keys(count * kHeads * head_dim);
          for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = std::sin(0.37F * static_cast<float>(i));
          keys[0] = std::numeric_limits<float>::quiet_NaN();
          keys[keys.size() / 2] = -std::numeric_limits<float>::infinity();
          keys[keys.size() - 1] = 3e-41F;
          const std::size_t elements = key_elements(first + count, head_dim, dtype);
          std::vector<std::byte> expected(kHeads * elements * size_of(dtype)), found(expected.size());
          write_key_panels(exec, dtype, found.data(), elements, first, {keys.data(), {count, kHeads, head_dim}});
          with_type(dtype, [&](auto type) {
            for (std::size_t head = 0; head < kHeads; ++head) {
              write_keys(reinterpret_cast<decltype(type)*>(expected.data()) + head * elements, first,
                         keys.data() + head * head_dim, kHeads * head_dim, count, head_dim);
            }
          });
          ASSERT_EQ(found, expected) << name_of(dtype) << " " << head_dim << " " << first << " " << count;
        }
      }
    }
  }
}

TEST(ValueRows, HaveTheBitsOfValuesRoundedOneByOne) {
  constexpr std::size_t kHeads = 3;
  for (const std::size_t threads : {1, 3}) {
    CpuExec exec(threads, detect_instruction_set());
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      for (const std::size_t head_dim : {1, 7, 64, 100}) {
        for (const std::size_t count : {1, 63, 200}) {
          std::vector<float> values(count * kHeads * head_dim);
          for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(0.37F * static_cast<float>(i));
          values[0] = std::numeric_limits<float>::quiet_NaN();
          values[values.size() / 2] = -std::numeric_limits<float>::infinity();
          values[values.size() - 1] = 3e-41F;
          const std::size_t elements = count * head_dim + 32;  // of a head, and something behind them
          std::vector<std::byte> expected(kHeads * elements * size_of(dtype), std::byte{0x5a}), found(expected);
          write_values(exec, dtype, found.data(), elements, {values.data(), {count, kHeads, head_dim}});
          with_type(dtype, [&](auto type) {
            using T = decltype(type);
            for (std::size_t i = 0; i < values.size(); ++i) {
              const std::size_t entry = i / (kHeads * head_dim), head = i / head_dim % kHeads, d = i % head_dim;
              const T rounded = from_float<T>(values[i]);
              std::memcpy(expected.data() + (head * elements + entry * head_dim + d) * sizeof(T), &rounded, sizeof(T));
            }
          });
          ASSERT_EQ(found, expected) << name_of(dtype) << " " << head_dim << " " << count;
        }
      }
    }
  }
}

TEST(BlockBegins, FindEntriesAcrossBlocksOfNone) {
  std::vector<EntryBlock> blocks;
  for (const std::size_t count : {0, 3, 0, 0, 32, 1, 0}) blocks.push_back({nullptr, nullptr, count, DType::f32});
  const BlockBegins begins(blocks);
  EXPECT_EQ(begins.entries(), 36U);
  EXPECT_EQ(begins[blocks.size()], 36U);
  std::size_t entry = 0;
  for (std::size_t block = 0; block < blocks.size(); ++block) {
    EXPECT_EQ(begins[block], entry);
    for (std::size_t i = 0; i < blocks[block].count; ++i) EXPECT_EQ(begins.block_of(entry++), block);
  }
  EXPECT_EQ(BlockBegins(std::span<const EntryBlock>()).entries(), 0U);
}

}  // namespace
}  // namespace memlane::testing
