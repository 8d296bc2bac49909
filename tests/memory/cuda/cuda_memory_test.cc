// Memory on a GPU, resident and streamed: the same bits, and those of the reference within rounding.

#include "memory/cuda/cuda_memory.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <string>

#include "tests/kernels/kernel_fixture.h"
#include "tests/reference/random_memory.h"

namespace memlane::testing {
namespace {

constexpr std::size_t kHeads = 4, kKvHeads = 2, kHeadDim = 20;
constexpr float kScale = 0.22F;

struct Case {
  const char* lookup;
  std::size_t tokens;
};

class CudaMemoryTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "this machine has no GPU that CUDA can use";
    exec_.emplace(0);
    lookup_ = Lookup::named(GetParam().lookup);
    lookup_.top_k = 9;
    first_.emplace(shape_, lookup_);
    second_.emplace(shape_, lookup_);
    for (const std::size_t count : {64, 64, 64, 7}) first_->append(random_, count);
    for (const std::size_t count : {64, 1, 33, 5}) second_->append(random_, count);
    memory_.emplace(shape_, lookup_);
    memory_->add(first_->memory());
    memory_->add(second_->memory());
    queries_ = random_.floats(GetParam().tokens * kHeads * kHeadDim, 2);
    for (float& query : queries_) query = to_float(from_float<BFloat16>(query));
  }

  OwnedPartial attended(CudaMemory& memory, std::size_t slot) {
    const std::size_t tokens = GetParam().tokens;
    const CudaBuffer<float> queries = uploaded(*exec_, queries_.data(), queries_.size());
    CudaPartialBuffer buffer;
    const CudaPartial out = buffer.get(tokens, kHeads, kHeadDim);
    memory.attend(*exec_, slot, queries.view<3>({tokens, kHeads, kHeadDim}), kScale, out);
    OwnedPartial partial(tokens, kHeads, kHeadDim);
    download(*exec_, out.sum, partial.view().sum);
    download(*exec_, out.max, partial.view().max);
    download(*exec_, out.weight, partial.view().weight);
    return partial;
  }

  /// Against the reference over the entries that the lookup chooses.
  void compare(const OwnedPartial& found, std::size_t slot) {
    for (std::size_t row = 0; row < GetParam().tokens * kHeads; ++row) {
      const std::size_t kv_head = row % kHeads / (kHeads / kKvHeads);
      reference::Entries all = first_->truth(slot, kv_head);
      all.append(second_->truth(slot, kv_head));
      const reference::Row query = row_of(queries_.data() + row * kHeadDim, kHeadDim);
      if (lookup_.kind == Lookup::Kind::exact) {
        reference::Row scores;
        for (const reference::Row& key : all.keys) scores.push_back(reference::dot(query, key));
        all = all.chosen(reference::top_k(scores, lookup_.top_k));
      }
      const reference::Partial truth = reference::partial_attention(query, all, kScale);
      ASSERT_NEAR(found.max[row], truth.max, 1e-4) << "row " << row;
      ASSERT_NEAR(found.weight[row] / truth.weight, 1, 0x1p-8) << "row " << row;
      for (std::size_t d = 0; d < kHeadDim; ++d) {
        ASSERT_NEAR(found.sum[row * kHeadDim + d] / static_cast<double>(found.weight[row]), truth.output()[d],
                    0x1p-7 + 1e-4)
            << "row " << row << ", element " << d;
      }
    }
  }

  static constexpr std::size_t kWhole = std::numeric_limits<std::size_t>::max();
  const EntryShape shape_{{1, 3}, kKvHeads, kHeadDim, DType::bf16};
  reference::Random random_{3};
  Lookup lookup_;
  ThreadPool pool_{3};
  std::optional<CudaExec> exec_;
  std::optional<reference::RandomDocument> first_, second_;
  std::optional<Memory> memory_;
  std::vector<float> queries_;
};

TEST_P(CudaMemoryTest, AttendsToWhatTheReferenceDoes) {
  for (const std::size_t piece : {std::size_t{1}, CudaBudget::kPiece}) {
    for (const std::size_t resident : {kWhole, std::size_t{0}}) {
      CudaMemory memory(*memory_, pool_, {.resident = resident, .piece = piece});
      for (const std::size_t slot : {0, 1}) compare(attended(memory, slot), slot);
      ASSERT_FALSE(HasFailure()) << "pieces of " << piece << ", " << resident << " resident";
    }
  }
}

TEST_P(CudaMemoryTest, HasTheSameBitsHoweverMuchIsResident) {
  const std::size_t window = device_bytes(shape_.segment_bytes(64));
  for (const std::size_t piece : {std::size_t{1}, 2 * layer_bytes(shape_, 64), 3 * layer_bytes(shape_, 64)}) {
    std::vector<OwnedPartial> expected;
    for (const std::size_t resident : {kWhole, std::size_t{0}, window, 4 * window}) {
      CudaMemory memory(*memory_, pool_, {.resident = resident, .piece = piece});
      for (const std::size_t slot : {1, 0}) {
        const OwnedPartial found = attended(memory, slot);
        if (expected.size() < 2) expected.push_back(found);
        EXPECT_TRUE(found.same_bits_as(expected[slot == 0 ? 1 : 0])) << resident << " resident, pieces of " << piece;
      }
      EXPECT_EQ(memory.streamed_windows() == 0, resident == kWhole);
      EXPECT_EQ(memory.streamed_windows() == 8, resident == 0 || (resident == window && piece > 1));
    }
  }
}

TEST_P(CudaMemoryTest, FollowsADocumentThatGrowsOutOfTheDevice) {
  CudaMemory followed(*memory_, pool_,
                      {.resident = 5 * device_bytes(shape_.segment_bytes(64)), .piece = 2 * layer_bytes(shape_, 64)});
  for (const std::size_t count : {3, 64, 20, 64, 64}) {
    second_->append(random_, count);
    const std::uint64_t before = followed.version();
    const OwnedPartial found = attended(followed, 1);
    EXPECT_NE(followed.version(), before);
    const std::uint64_t version = followed.version();
    attended(followed, 0);
    EXPECT_EQ(followed.version(), version) << "nothing has changed";
    CudaMemory whole(*memory_, pool_, {.piece = 2 * layer_bytes(shape_, 64)});
    EXPECT_TRUE(found.same_bits_as(attended(whole, 1)));
    compare(found, 1);
  }
  EXPECT_GT(followed.streamed_windows(), 0U);
  EXPECT_LT(followed.streamed_windows(), 13U);
}

TEST_P(CudaMemoryTest, RefusesWhatNeitherFitsNorCanBeStreamed) {
  CudaMemory memory(*memory_, pool_,
                    {.resident = 3 * device_bytes(shape_.segment_bytes(64)), .streams = false, .piece = 1});
  EXPECT_THROW(attended(memory, 0), InputError);
  EXPECT_THROW(attended(memory, 0), InputError) << "again, though the first call has copied nothing";
}

TEST(CudaMemory, SaysWhatAGpuDoesNotHave) {
  const auto error = [](const EntryShape& shape, const char* name, std::size_t top_k = 32) {
    Lookup lookup = Lookup::named(name);
    lookup.top_k = top_k;
    try {
      CudaMemory::require_supported(shape, lookup);
    } catch (const InputError& refused) {
      return std::string(refused.what());
    }
    return std::string();
  };
  const EntryShape shape{{1}, 2, 64, DType::bf16};
  EXPECT_EQ(error(shape, "dense"), "");
  EXPECT_EQ(error(shape, "exact"), "");
  for (const char* name : {"int8", "ivf", "IVF16,Flat"}) {
    EXPECT_NE(error(shape, name).find(std::string("--index ") + name), std::string::npos) << name;
  }
  EXPECT_NE(error(shape, "exact", std::size_t{1} << 24).find("--top-k 16777216"), std::string::npos);
  EXPECT_EQ(error(shape, "dense", std::size_t{1} << 60), "") << "which has no use for it";
  EXPECT_NE(error({{1}, 2, 64, DType::f16}, "dense").find("--mem-dtype float16"), std::string::npos);
  EXPECT_NE(error({{1}, 2, 130, DType::bf16}, "dense").find("head_dim 130"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Of, CudaMemoryTest,
                         ::testing::Values(Case{"dense", 1}, Case{"dense", 50}, Case{"exact", 1}, Case{"exact", 50}),
                         [](const auto& each) {
                           return std::string(each.param.lookup) + std::to_string(each.param.tokens);
                         });

}  // namespace
}  // namespace memlane::testing
