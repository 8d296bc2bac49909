#include "memory/segment.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/reference/numbers.h"
#include "tests/reference/random_values.h"

namespace memlane {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::f16, DType::bf16};

TEST(Segment, GivesBackWhatItWasFilledWith) {
  reference::Random random(1);
  for (const DType dtype : kTypes) {
    const EntryShape shape{{1, 3}, 3, 10, dtype};
    constexpr std::size_t kCount = 37;
    CpuExec exec(2);
    Segment segment(shape, kCount);
    std::vector<std::vector<float>> keys, values;
    for (std::size_t slot = 0; slot < 2; ++slot) {
      keys.push_back(random.floats(kCount * 30));
      values.push_back(random.floats(kCount * 30));
      segment.fill(exec, slot, View<const float, 3>(keys[slot].data(), {kCount, 3, 10}),
                   View<const float, 3>(values[slot].data(), {kCount, 3, 10}));
    }
    for (std::size_t i = 0; i < 2 * kCount * 30; ++i) {
      const std::size_t slot = i / (kCount * 30), entry = i % (kCount * 30) / 30, head = i % 30 / 10, d = i % 10;
      const EntryBlock block = segment.block(slot, head);
      float key[10];
      read_key(block, entry, 10, key);
      const float value = with_type(
          dtype, [&](auto type) { return to_float(static_cast<const decltype(type)*>(block.values)[entry * 10 + d]); });
      ASSERT_EQ(key[d], reference::rounded(keys[slot][i % (kCount * 30)], dtype));
      ASSERT_EQ(value, reference::rounded(values[slot][i % (kCount * 30)], dtype));
    }
  }
}

// What a segment holds is written to files and read back where it lies, so its bytes must mean the same anywhere.
TEST(Segment, MeansTheSameOverACopyOfItsBytes) {
  reference::Random random(2);
  const EntryShape shape{{0}, 2, 6, DType::bf16};
  CpuExec exec(1);
  Segment segment(shape, 5);
  const std::vector<float> keys = random.floats(60), values = random.floats(60);
  segment.fill(exec, 0, View<const float, 3>(keys.data(), {5, 2, 6}), View<const float, 3>(values.data(), {5, 2, 6}));
  EXPECT_EQ(segment.bytes().size(), shape.segment_bytes(5));
  Buffer<std::byte> copy(segment.bytes().size());
  std::memcpy(copy.data(), segment.bytes().data(), copy.size());
  const Segment mapped(shape, 5, copy.data());
  for (std::size_t entry = 0; entry < 5; ++entry) {
    float key[6], copied[6];
    read_key(segment.block(0, 1), entry, 6, key);
    read_key(mapped.block(0, 1), entry, 6, copied);
    EXPECT_EQ(0, std::memcmp(key, copied, sizeof key));
  }
}

TEST(Segment, PartsAreAlignedAndApart) {
  const EntryShape shape{{0, 1}, 2, 3, DType::f16};
  const Segment segment(shape, 33);
  const std::byte* end = segment.bytes().data();
  for (std::size_t slot = 0; slot < 2; ++slot) {
    for (std::size_t head = 0; head < 2; ++head) {
      const EntryBlock block = segment.block(slot, head);
      EXPECT_EQ(block.keys, end);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block.keys) % 64, 0U);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block.values) % 64, 0U);
      EXPECT_EQ(static_cast<const std::byte*>(block.values) - end, static_cast<std::ptrdiff_t>(shape.key_bytes(33)));
      end = static_cast<const std::byte*>(block.values) + shape.value_bytes(33);
    }
  }
  EXPECT_EQ(end, segment.bytes().data() + segment.bytes().size());
}

TEST(Segment, RefusesWhatItsContractExcludes) {
  const EntryShape shape{{0}, 2, 4, DType::f32};
  const std::vector<float> rows(24);
  EXPECT_THROW(Segment(shape, 0), std::logic_error);
  CpuExec exec(1);
  Segment segment(shape, 3);
  EXPECT_THROW(segment.block(1, 0), std::logic_error);
  EXPECT_THROW(segment.block(0, 2), std::logic_error);
  const View<const float, 3> wrong(rows.data(), {2, 2, 4});
  EXPECT_THROW(segment.fill(exec, 0, wrong, wrong), std::logic_error);
  Segment borrowed(shape, 3, segment.bytes().data());
  const View<const float, 3> right(rows.data(), {3, 2, 4});
  EXPECT_THROW(borrowed.fill(exec, 0, right, right), std::logic_error);
}

}  // namespace
}  // namespace memlane
