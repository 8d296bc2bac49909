// Lists of keys: what they hold, what is stored of them, and what is refused.
#include "memory/list_index.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/clusters.h"
#include "kernels/error.h"
#include "tests/reference/float_entries.h"
#include "tests/reference/random_values.h"

namespace memlane {
namespace {

constexpr std::size_t kHeadDim = 16;
const ListSettings kSettings{.chunk = 128, .lists = 8};

const MicroKernels& micro() {
  return micro_kernels(detect_instruction_set());
}

/// Random keys and values, added to an index in windows.
struct Keys {
  explicit Keys(std::size_t count) : n(count) {
    reference::Random random(5);
    keys = random.floats(n * kHeadDim);
    values = random.floats(n * kHeadDim);
  }
  void add(ListIndex& index, std::size_t begin, std::size_t end) const {
    MEMLANE_EXPECTS(index.size() == begin);
    index.update(micro(), reference::FloatEntries(keys.data(), values.data(), end, kHeadDim).rows(), unwatched);
  }
  ListIndex indexed(std::size_t window = 50) const {
    ListIndex index(kSettings, kHeadDim);
    for (std::size_t begin = 0; begin < n; begin += window) add(index, begin, std::min(n, begin + window));
    return index;
  }
  std::size_t n;
  std::vector<float> keys, values;
};

TEST(ListIndex, TakesDistancesByTheMetric) {
  const Keys keys(120);
  const auto lists_apart = [&](std::size_t element) {  // the mean spread within lists of one element of the keys
    ListIndex index(kSettings, kHeadDim);
    std::vector<float> metric(kHeadDim * kHeadDim);
    for (std::size_t d = 0; d < kHeadDim; ++d) metric[d * kHeadDim + d] = d == 3 ? 100.0F : 1.0F;
    index.set_metric(metric);
    keys.add(index, 0, keys.n);
    double sum = 0;
    const ListChunk& chunk = index.chunks().front();
    for (std::size_t l = 0; l < chunk.lists; ++l) {
      for (std::size_t i = 0; i < chunk.list[l].count; ++i) {
        const float x = keys.keys[chunk.list[l].entries[i] * kHeadDim + element];
        sum += std::abs(static_cast<double>(x - chunk.means[element * 32 + l])) / static_cast<double>(keys.n);
      }
    }
    return sum;
  };
  EXPECT_LT(lists_apart(3), 0.25 * lists_apart(4)) << "the element that counts a hundred times";
}

TEST(ListIndex, IsTheSameUnderAMetricThatChangesNothing) {
  const Keys keys(333);
  ListIndex index(kSettings, kHeadDim);
  std::vector<float> identity(kHeadDim * kHeadDim);
  for (std::size_t d = 0; d < kHeadDim; ++d) identity[d * kHeadDim + d] = 1;
  index.set_metric(identity);
  for (std::size_t begin = 0; begin < keys.n; begin += 50) keys.add(index, begin, std::min(keys.n, begin + 50));
  EXPECT_EQ(index.save(), keys.indexed().save());
}

/// Every entry is in one list, and what is said of lists and chunks is so.
void expect_moments(const ListIndex& index, const Keys& keys) {
  EXPECT_EQ(index.size(), keys.n);
  std::vector<int> seen(keys.n, 0);
  for (const ListChunk& chunk : index.chunks()) {
    double trace = 0, all = 0;
    std::vector<std::array<double, 3>> spreads;  // variance, spread, keys
    for (std::size_t l = 0; l < chunk.lists; ++l) {
      const KeyList& list = chunk.list[l];
      const auto count = static_cast<double>(list.count);
      EXPECT_NEAR(chunk.log_counts[l], std::log(count), 1e-6);
      double variance = 0;
      for (std::size_t d = 0; d < kHeadDim; ++d) {
        double mean = 0, square = 0, value = 0;
        for (std::size_t i = 0; i < list.count; ++i) {
          const auto x = static_cast<double>(keys.keys[list.entries[i] * kHeadDim + d]);
          mean += x / count;
          square += x * x / count;
          value += static_cast<double>(keys.values[list.entries[i] * kHeadDim + d]) / count;
        }
        if (list.count == 0) continue;
        EXPECT_NEAR(chunk.means[(l / 32 * kHeadDim + d) * 32 + l % 32], mean, 1e-5);
        variance += square - mean * mean;
        EXPECT_NEAR(chunk.value_means[l * 32 + d], value, 1e-5);
      }
      trace += variance * count;
      spreads.push_back({variance, static_cast<double>(chunk.spreads[l]), count});
      for (std::size_t i = 0; i < list.count; ++i) ++seen[list.entries[i]];
    }
    for (const auto& [variance, spread, count] : spreads) all += count;
    for (const auto& [variance, spread, count] : spreads) EXPECT_NEAR(spread, variance / (trace / all), 1e-3);
    double covariance = 0;  // its trace; means moved while keys came
    for (std::size_t d = 0; d < kHeadDim; ++d) covariance += static_cast<double>(chunk.key_covariance[d * 32 + d]);
    EXPECT_NEAR(covariance, trace / all, 0.1 * trace / all);
  }
  EXPECT_THAT(seen, ::testing::Each(1));
}

TEST(ListIndex, HoldsEveryEntryOnceWithItsMoments) {
  const Keys keys(333);
  const ListIndex index = keys.indexed();
  EXPECT_GE(index.chunks().size(), 3U);
  expect_moments(index, keys);
}

TEST(ListIndex, ClustersFullChunksTogether) {
  constexpr std::size_t kMerged = 4;
  const Keys keys((kMerged + 2) * kSettings.chunk + 50);
  const ListIndex index = keys.indexed(64);
  ASSERT_EQ(index.chunks().size(), 4U) << "a merged one, two full ones, and that which fills up";
  std::vector<std::size_t> entries, lists;
  for (const ListChunk& chunk : index.chunks()) {
    lists.push_back(chunk.lists);
    entries.push_back(0);
    for (std::size_t l = 0; l < chunk.lists; ++l) entries.back() += chunk.list[l].count;
  }
  EXPECT_THAT(entries, ::testing::ElementsAre(kMerged * kSettings.chunk, kSettings.chunk, kSettings.chunk, 50U));
  EXPECT_GE(lists[0], 2 * kMerged * lists[1]) << "lists of half as many keys";
  expect_moments(index, keys);
  const ListIndex::Extent extent = ListIndex::extent_of(kSettings, keys.n);
  EXPECT_EQ(extent.chunks, index.chunks().size());
  EXPECT_NEAR(static_cast<double>(extent.lists), static_cast<double>(lists[0] + lists[1] + lists[2] + lists[3]), 10);
}

TEST(ListIndex, ClustersSixteenChunksTogetherAtOnce) {
  const Keys keys(16 * kSettings.chunk);
  const ListIndex index = keys.indexed(64);
  EXPECT_EQ(index.chunks().size(), 1U);
  expect_moments(index, keys);
}

/// What is clustered together as an index grows, by what is left of it: whoever predicts times counts on that.
TEST(ListIndex, SaysWhatItClustersTogether) {
  using Merged = std::vector<std::pair<std::size_t, std::size_t>>;
  EXPECT_EQ(ListIndex::merged_entries(kSettings, 0, 511), Merged());
  EXPECT_EQ(ListIndex::merged_entries(kSettings, 0, 513), (Merged{{512, 512}}));
  EXPECT_EQ(ListIndex::merged_entries(kSettings, 600, 1000), (Merged{{512, 0}}));
  EXPECT_EQ(ListIndex::merged_entries(kSettings, 600, 2048), (Merged{{512, 1024}, {2048, 2048}}));
  EXPECT_EQ(ListIndex::merged_entries({.chunk = 128, .lists = 1}, 0, 2048), Merged());
}

TEST(ListIndex, CutsACellOfManyAlikeKeys) {
  Keys keys(4096);  // all but a few the same: in one cell
  for (std::size_t i = 0; i < keys.n; ++i) {
    if (i % 64 != 0)
      std::copy_n(keys.keys.begin(), kHeadDim, keys.keys.begin() + static_cast<std::ptrdiff_t>(i * kHeadDim));
  }
  const reference::FloatEntries entries(keys.keys.data(), keys.values.data(), keys.n, kHeadDim);
  const auto index = ListIndex::whole(kSettings, kHeadDim, micro(), entries.rows());
  std::vector<int> seen(keys.n, 0);
  ASSERT_EQ(index->chunks().size(), 1U);
  std::size_t alike = 0;  // lists with some of them
  for (const KeyList& list : std::span(index->chunks()[0].list, index->chunks()[0].lists)) {
    for (std::size_t i = 0; i < list.count; ++i) ++seen[list.entries[i]];
    alike += std::any_of(list.entries, list.entries + list.count, [](std::uint32_t entry) { return entry % 64 != 0; });
  }
  EXPECT_THAT(seen, ::testing::Each(1));
  EXPECT_GE(alike, 4U) << "each piece is clustered by itself";
}

TEST(ListIndex, OfAllEntriesTogetherHasOneChunk) {
  const Keys keys(1500);
  const reference::FloatEntries entries(keys.keys.data(), keys.values.data(), keys.n, kHeadDim);
  const auto index = ListIndex::whole(kSettings, kHeadDim, micro(), entries.rows());
  ASSERT_EQ(index->chunks().size(), 1U);
  expect_moments(*index, keys);
  const std::vector<std::byte> saved = index->save();
  const auto loaded = ListIndex::load(kSettings, kHeadDim, saved);
  EXPECT_EQ(loaded->save(), saved);
  expect_moments(*loaded, keys);
}

TEST(ListIndex, CodesOfMeansAreTheMeansRounded) {
  const Keys keys(1100);
  const ListIndex index = keys.indexed();
  const std::size_t panel_bytes = key_list_panel_bytes(kHeadDim);
  for (const ListChunk& chunk : index.chunks()) {
    for (std::size_t l = 0; l < chunk.lists; ++l) {
      // A scale for each key of the panel, then units of four numbers (kernels/cpu/quantised_layout.h).
      const std::byte* const panel = chunk.mean_codes + l / 32 * panel_bytes;
      float scale = 0;
      std::memcpy(&scale, panel + l % 32 * sizeof scale, sizeof scale);
      for (std::size_t d = 0; d < kHeadDim && chunk.list[l].count > 0; ++d) {
        const auto code = static_cast<std::int8_t>(panel[32 * sizeof scale + (d / 4 * 32 + l % 32) * 4 + d % 4]);
        EXPECT_NEAR(scale * code, chunk.means[(l / 32 * kHeadDim + d) * 32 + l % 32], 0.51F * scale);
      }
    }
  }
}

TEST(ListIndex, IsTheSameAfterSavingAndGoesOnTheSame) {
  const Keys keys(300);
  ListIndex whole(kSettings, kHeadDim), first(kSettings, kHeadDim);
  keys.add(whole, 0, 170);
  keys.add(first, 0, 170);
  const std::vector<std::byte> saved = first.save();
  const auto loaded = ListIndex::load(kSettings, kHeadDim, saved);
  EXPECT_EQ(loaded->save(), saved);
  keys.add(whole, 170, 300);
  keys.add(*loaded, 170, 300);
  EXPECT_EQ(loaded->save(), whole.save());
}

TEST(ListIndex, GoesOnTheSameAfterSavingWhereChunksAreClusteredTogether) {
  const Keys keys(17 * kSettings.chunk);
  ListIndex index(kSettings, kHeadDim);
  for (std::size_t begin = 0; begin < keys.n; begin += 100) {
    const std::vector<std::byte> saved = index.save();
    const auto loaded = ListIndex::load(kSettings, kHeadDim, saved);
    const std::size_t end = std::min(keys.n, begin + 100);
    keys.add(index, begin, end);
    keys.add(*loaded, begin, end);
    ASSERT_EQ(loaded->save(), index.save()) << end;
  }
}

TEST(ListIndex, NearKeysShareAList) {
  // Four far points with a little noise.
  Keys keys(128);
  for (std::size_t i = 0; i < keys.n; ++i) {
    for (std::size_t d = 0; d < kHeadDim; ++d) {
      keys.keys[i * kHeadDim + d] = 0.01F * keys.keys[i * kHeadDim + d] + (d == i % 4 ? 10.0F : 0.0F);
    }
  }
  ListIndex index({.chunk = 128, .lists = 8}, kHeadDim);
  keys.add(index, 0, 128);
  for (std::size_t l = 0; l < 8; ++l) {
    const KeyList& list = index.chunks()[0].list[l];
    for (std::size_t i = 1; i < list.count; ++i) EXPECT_EQ(list.entries[i] % 4, list.entries[0] % 4);
  }
}

TEST(ListIndex, ClustersOfPointsAreNearest) {
  reference::Random random(9);
  const std::vector<float> points = random.floats(500 * 7);
  const std::vector<float> means = k_means(micro(), {points.data(), {500, 7}}, 40);
  const auto nearest = ClusterMeans({means.data(), {40, 7}}).nearest(micro(), {points.data(), {500, 7}});
  const auto distance = [&](std::size_t i, std::size_t c) {
    double sum = 0;
    for (std::size_t d = 0; d < 7; ++d) sum += std::pow(points[i * 7 + d] - means[c * 7 + d], 2);
    return sum;
  };
  for (std::size_t i = 0; i < 500; ++i) {
    for (std::size_t c = 0; c < 40; ++c) EXPECT_LE(distance(i, nearest[i]), distance(i, c) + 1e-5);
  }
}

TEST(ListIndex, RefusesBytesThatAreNoSuchIndex) {
  const std::vector<std::byte> saved = Keys(300).indexed().save();
  EXPECT_THROW(ListIndex::load(kSettings, kHeadDim + 1, saved), InputError);
  EXPECT_THROW(ListIndex::load({.chunk = 256, .lists = 8}, kHeadDim, saved), InputError);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{63}, std::size_t{64}, saved.size() / 2, saved.size() - 64}) {
    EXPECT_THROW(ListIndex::load(kSettings, kHeadDim, std::span(saved).first(size)), InputError) << size;
  }
  // Whatever a word of its heads and ids says, it is refused or read, and what is read stays inside.
  reference::Random random(3);
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<std::byte> changed = saved;
    const auto at = static_cast<std::size_t>(random.floats(1)[0] * 1e6F) % (changed.size() / 4) * 4;
    const std::uint32_t word = trial % 3 == 0 ? 0xffffffffU : static_cast<std::uint32_t>(trial);
    std::memcpy(changed.data() + at, &word, 4);
    try {
      const auto loaded = ListIndex::load(kSettings, kHeadDim, changed);
      EXPECT_EQ(loaded->size(), 300U);
    } catch (const InputError&) {
    }
  }
}

TEST(ListIndex, RefusesCellsThatDoNotHoldEveryListOnce) {
  const ListIndex index = Keys(16 * kSettings.chunk).indexed(64);
  const ListCells& cells = index.chunks().front().cells;
  ASSERT_GE(cells.count, 4U);
  const std::vector<std::byte> saved = index.save();
  // Behind the head, the chunk's head and the numbers of keys of its lists.
  const std::size_t begins = 128 + (index.chunks().front().lists * sizeof(std::uint32_t) + 63) / 64 * 64;
  ASSERT_EQ(std::memcmp(saved.data() + begins, cells.begins, (cells.count + 1) * sizeof(std::uint32_t)), 0);
  for (const std::size_t cell : {std::size_t{0}, std::size_t{1}, cells.count}) {
    for (const std::uint32_t begin : {cells.begins[cell] + 1000000, cell == 0 ? 1U : cells.begins[cell - 1]}) {
      std::vector<std::byte> changed = saved;
      std::memcpy(changed.data() + begins + cell * sizeof begin, &begin, sizeof begin);
      EXPECT_THROW(ListIndex::load(kSettings, kHeadDim, changed), InputError) << cell << ": " << begin;
    }
  }
  const std::size_t count_at = 64 + 4 * sizeof(std::uint64_t);
  for (const std::uint64_t count : {std::uint64_t{1}, cells.count + 1, std::uint64_t{1} << 60}) {
    std::vector<std::byte> changed = saved;
    std::memcpy(changed.data() + count_at, &count, sizeof count);
    EXPECT_THROW(ListIndex::load(kSettings, kHeadDim, changed), InputError) << count;
  }
}

TEST(ListIndex, MoreListsAreScannedOfMore) {
  const ListSettings settings = ListSettings::of(Lookup::named("ivf"));
  EXPECT_EQ(settings.probes_of(256), 128U);
  EXPECT_EQ(settings.probes_of(3000), 500U);
  EXPECT_EQ(settings.probes_of(24000), 1262U);
}

TEST(ListIndex, ParametersAreNamedWhenRefused) {
  for (const char* wrong : {"probes", "probes=0", "probes=x", "probes=3x", "mass=0", "mass=2", "tail=maybe", "nprobe=3",
                            ",", "lists=0", "chunk=-1", "rerank=0.5", "rerank=1001", "rerank=nan", "rerank="}) {
    Lookup lookup = Lookup::named("ivf");
    lookup.parameters = wrong;
    EXPECT_THROW(ListSettings::of(lookup), InputError) << wrong;
  }
  Lookup lookup = Lookup::named("ivf");
  EXPECT_EQ(ListSettings::of(lookup).candidates(10), 13U) << "a quarter more, rounded up";
  lookup.parameters = "rerank=1";
  EXPECT_EQ(ListSettings::of(lookup).candidates(10), 10U);
  lookup.parameters = "probes=7,lists=9,chunk=100,rerank=3,mass=0.5,tail=off";
  const ListSettings settings = ListSettings::of(lookup);
  EXPECT_EQ(settings.probes, 7U);
  EXPECT_EQ(settings.probes_of(1000000), 7U);
  EXPECT_EQ(settings.lists, 9U);
  EXPECT_EQ(settings.chunk, 100U);
  EXPECT_EQ(settings.rerank, 3);
  EXPECT_EQ(settings.candidates(10), 30U);
  EXPECT_EQ(settings.mass, 0.5);
  EXPECT_FALSE(settings.tail);
  lookup = Lookup::named("int8");
  lookup.parameters = "lists=9";
  EXPECT_THROW(ListSettings::of(lookup), InputError);
}

}  // namespace
}  // namespace memlane
