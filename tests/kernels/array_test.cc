#include "kernels/array.h"

#include <gtest/gtest.h>

#include <new>
#include <type_traits>

#include "kernels/exec.h"

namespace memlane {
namespace {

struct OtherDevice {};
static_assert(!std::is_convertible_v<View<float, 2, OtherDevice>, View<float, 2>>,
              "a view of another device is no host view");
static_assert(std::is_convertible_v<View<float, 2>, View<const float, 2>>);
static_assert(!std::is_convertible_v<View<const float, 2>, View<float, 2>>);

TEST(View, IndexesRowsOfItsLastAxis) {
  std::vector<int> data(24);
  for (int i = 0; i < 24; ++i) data[static_cast<std::size_t>(i)] = i;
  const View<int, 3> view(data.data(), {2, 3, 4});
  EXPECT_EQ(view[1][2][3], 23);
  EXPECT_EQ(view[1].extents(), (std::array<std::size_t, 2>{3, 4}));
  EXPECT_EQ(view.row_size(), 12U);
  EXPECT_EQ(view.slice(1, 2)[0][0][0], 12);
  EXPECT_EQ(view.reshape<2>({6, 4})[4][1], 17);
  EXPECT_EQ(view.flat().size(), 24U);
}

TEST(View, RefusesWhatLiesOutside) {
  std::vector<int> data(6);
  const View<int, 2> view(data.data(), {2, 3});
  EXPECT_THROW(view[2], std::logic_error);
  EXPECT_THROW(view[0][3], std::logic_error);
  EXPECT_THROW(view.slice(1, 3), std::logic_error);
  EXPECT_THROW(view.slice(2, 1), std::logic_error);
  EXPECT_THROW(view.reshape<1>({7}), std::logic_error);
}

TEST(View, MayBeEmpty) {
  const View<float, 2> none;
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(none.row_size(), 0U);
  EXPECT_TRUE((View<float, 2>(nullptr, {3, 0}).empty()));
  EXPECT_EQ((View<float, 2>(nullptr, {0, 3}).slice(0, 0).extent(1)), 3U);
}

TEST(Buffer, IsAlignedToCacheLinesAndHugePages) {
  const Buffer<float> small(3);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(small.data()) % 64, 0U);
  const Buffer<std::byte> large(std::size_t{5} << 20);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(large.data()) % (std::size_t{2} << 20), 0U);
}

TEST(Buffer, ZeroedIsZero) {
  const auto buffer = Buffer<std::uint16_t>::zeroed(1000);
  for (const std::uint16_t x : buffer.span()) EXPECT_EQ(x, 0);
}

TEST(Buffer, RefusesSizesThatOverflow) {
  EXPECT_THROW(Buffer<float>(std::numeric_limits<std::size_t>::max() / 2), std::bad_alloc);
  EXPECT_THROW(Buffer<std::byte>(std::numeric_limits<std::size_t>::max() - 3), std::bad_alloc);
}

TEST(Buffer, RefusesViewsLargerThanItself) {
  Buffer<float> buffer(12);
  EXPECT_NO_THROW(buffer.view<2>({3, 4}));
  EXPECT_NO_THROW(buffer.view<2>({2, 4}));
  EXPECT_THROW(buffer.view<2>({3, 5}), std::logic_error);
}

TEST(Buffer, KeepsStorageThatIsLargeEnough) {
  Buffer<float> buffer(10);
  const float* before = buffer.data();
  buffer.reserve_discarding(7);
  EXPECT_EQ(buffer.data(), before);
  EXPECT_EQ(buffer.size(), 10U);
  buffer.reserve_discarding(11);
  EXPECT_EQ(buffer.size(), 11U);
}

TEST(Buffer, IsEmptyOnceItIsMovedFrom) {
  Buffer<int> from(5);
  int* const data = from.data();
  Buffer<int> to(std::move(from));
  EXPECT_EQ(from.size(), 0U);  // NOLINT(bugprone-use-after-move): what this is about
  EXPECT_EQ(from.data(), nullptr);
  EXPECT_EQ(to.size(), 5U);
  EXPECT_EQ(to.data(), data);
  from = std::move(to);
  EXPECT_EQ(to.size(), 0U);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(from.size(), 5U);
}

TEST(Contracts, SayWhatBrokeAndWhere) {
  try {
    MEMLANE_EXPECTS(1 + 1 == 3);
    FAIL();
  } catch (const std::logic_error& error) {
    EXPECT_NE(std::string(error.what()).find("1 + 1 == 3"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("array_test.cc:"), std::string::npos);
  }
}

TEST(ScratchLayout, MeasuresWhatItHandsOutInAlignedPieces) {
  ScratchLayout measure(nullptr);
  EXPECT_EQ(measure.take<float>(3), nullptr);
  EXPECT_EQ(measure.take<double>(9), nullptr);
  EXPECT_EQ(measure.bytes(), 64U + 128U);
  Buffer<std::byte> storage(measure.bytes());
  ScratchLayout layout(storage.data());
  EXPECT_EQ(reinterpret_cast<std::byte*>(layout.take<float>(3)), storage.data());
  EXPECT_EQ(reinterpret_cast<std::byte*>(layout.take<double>(9)), storage.data() + 64);
}

TEST(InstructionSets, AreKnownByName) {
  for (int set = 0; set <= static_cast<int>(detect_instruction_set()); ++set) {
    const auto known = static_cast<InstructionSet>(set);
    EXPECT_EQ(instruction_set_named(name_of(known)), known);
    EXPECT_STREQ(micro_kernels(known).name, name_of(known));
  }
  EXPECT_THROW(instruction_set_named("sse9"), InputError);
}

}  // namespace
}  // namespace memlane
