#include "runtime/cost_estimate.h"

#include <gtest/gtest.h>

#include "runtime/lookup_cost.h"

namespace memlane {
namespace {

/// 2 of 3 layers are memory layers, the first of which attends while documents are read.
class CostEstimate : public ::testing::Test {
 protected:
  CostEstimate() {
    config_.vocab_size = 100;
    config_.hidden_size = 32;
    config_.intermediate_size = 64;
    config_.num_layers = 3;
    config_.num_heads = 4;
    config_.num_kv_heads = 2;
    config_.head_dim = 32;
    settings_.mem_layers = {1, 2};
    settings_.mem_dtype = DType::bf16;
    settings_.window = settings_.memory_window = 512;
  }

  LookupCost lookup_cost(std::string_view name, std::size_t most) {
    return {exec_, config_, settings_, Lookup::named(name), most};
  }

  ModelConfig config_;
  MemorySettings settings_;
  CpuExec exec_{std::size_t{2}};
};

TEST_F(CostEstimate, CountsWhatEachWindowLooksUpAndStores) {
  using Lookups = std::map<std::size_t, double>;
  ReadingCost cost = reading_cost(config_, settings_, 0, 1100);
  EXPECT_EQ(cost.lookups, (Lookups{{512, 512}, {1024, 76}}));
  EXPECT_EQ(cost.stored, 2200);
  const double tokens = 512.0 * 512 / 2 * 2 + 76.0 * 76 / 2;  // pairs in the windows
  EXPECT_EQ(cost.scores, 4 * 2 * tokens) << "of 4 heads, in the plain layer and the one that attends";
  const ReadingCost kept = reading_cost(config_, settings_, 512, 1600, 512);
  EXPECT_EQ(kept.lookups, (Lookups{{512, 1088}}));
  cost += kept;
  EXPECT_EQ(cost.lookups, (Lookups{{512, 1600}, {1024, 76}}));
  EXPECT_EQ(cost.stored, 2200 + 2176);
  EXPECT_EQ(reading_cost(config_, settings_, 0, 500).lookups, Lookups());
}

TEST_F(CostEstimate, GrowsWithMemoryAsTheLookupDoes) {
  constexpr std::size_t kFew = 16384, kMany = std::size_t{1} << 20;
  constexpr int kMeasured = 5;  // times at most: other processes make some of milliseconds a multiple
  for (const char* name : {"dense", "exact", "int8", "ivf", "IVF64,Flat"}) {
    // Sixty times the entries: a scan costs that much more, lists less, but more.
    const double least = name == std::string_view("ivf") ? 2 : 5;
    double growth = 0;
    for (int measured = 0; measured < kMeasured && growth <= least; ++measured) {
      const LookupCost cost = lookup_cost(name, kMany);
      EXPECT_EQ(cost.seconds_per_token(0), 0) << name;
      ASSERT_GT(cost.seconds_per_token(kFew), 0) << name;
      growth = cost.seconds_per_token(kMany) / cost.seconds_per_token(kFew);
    }
    EXPECT_GT(growth, least) << name;
  }
  bool lists_are_faster = false;
  for (int measured = 0; measured < kMeasured && !lists_are_faster; ++measured) {
    lists_are_faster =
        lookup_cost("ivf", kMany).seconds_per_token(kMany) < lookup_cost("exact", kMany).seconds_per_token(kMany);
  }
  EXPECT_TRUE(lists_are_faster);
}

TEST_F(CostEstimate, CountsTheMakingOfIndexes) {
  EXPECT_EQ(lookup_cost("dense", 4096).seconds_per_entry(), 0);
  EXPECT_EQ(lookup_cost("exact", 4096).seconds_per_entry(), 0);
  EXPECT_GT(lookup_cost("ivf", 4096).seconds_per_entry(), 0);
  const auto seconds = [&](double stored) {
    ReadingCost cost;
    cost.stored = stored;
    return estimate_seconds(exec_, config_, settings_, DType::f32, Lookup::named("ivf"), cost);
  };
  EXPECT_GT(seconds(1e9), 100 * seconds(1e6));
}

TEST_F(CostEstimate, IsMeasuredForAnyShape) {
  for (const std::size_t head_dim : {1, 7, 96, 1 << 16}) {
    config_.head_dim = head_dim;
    for (const char* name : {"dense", "exact", "int8", "ivf"}) {
      for (const std::size_t most : {1, 600, 20000}) {
        EXPECT_GE(lookup_cost(name, most).seconds_per_token(most), 0) << name << " " << head_dim << " " << most;
      }
    }
  }
}

}  // namespace
}  // namespace memlane
