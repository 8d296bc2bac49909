// Searches of so many lists that only those of some cells are compared.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "memory/list_index.h"
#include "tests/reference/float_entries.h"
#include "tests/reference/random_values.h"

namespace memlane {
namespace {

constexpr std::size_t kHeadDim = 8, kTopics = 300, kKeys = 230000, kTokens = 40, kTopK = 16;
const ListSettings kSettings{.chunk = 32, .lists = 2};  // so that a list has 8 keys

/// Keys around some points, in lists over all of them together.
class Topics {
 public:
  Topics() {
    reference::Random random(11);
    centres_ = random.floats(kTopics * kHeadDim, 4);
    keys_ = random.floats(kKeys * kHeadDim);
    for (std::size_t i = 0; i < kKeys; ++i) {
      const std::size_t topic = i * 7919 % kTopics;
      for (std::size_t d = 0; d < kHeadDim; ++d) keys_[i * kHeadDim + d] += centres_[topic * kHeadDim + d];
    }
    entries_ = std::make_unique<reference::FloatEntries>(keys_.data(), keys_.data(), kKeys, kHeadDim);
    index_ = ListIndex::whole(kSettings, kHeadDim, exec_.micro(), entries_->rows());
    queries_ = random.floats(kTokens * kHeadDim, 2);
  }

  struct Found {
    std::vector<std::int64_t> ids;  // [tokens, kTopK]
    double compared = 0;            // lists and cells a query
  };
  /// probes: many lists are compared all.
  Found find(std::size_t begin, std::size_t end, std::size_t probes, std::span<const ListChunk> chunks) {
    const std::size_t tokens = end - begin;
    Found found{std::vector<std::int64_t>(tokens * kTopK), 0};
    std::vector<float> scores(found.ids.size());
    SearchCount count;
    const ListSearch search{.probes = probes, .candidates = 2 * kTopK, .count = &count};
    search_lists(exec_, {queries_.data() + begin * kHeadDim, {tokens, 1, kHeadDim}},
                 {blocks_.data(), {1, blocks_.size()}}, {chunks.data(), {1, chunks.size()}}, search,
                 {found.ids.data(), {tokens, 1, kTopK}}, {scores.data(), {tokens, 1, kTopK}}, nullptr);
    found.compared = static_cast<double>(count.lists) / static_cast<double>(count.rows);
    return found;
  }
  Found find(std::size_t probes) {
    blocks_ = {entries_->block()};
    return find(0, kTokens, probes, index_->chunks());
  }
  std::size_t lists() const { return index_->chunks().front().lists; }

  CpuExec exec_{2};
  std::vector<float> centres_, keys_, queries_;
  std::unique_ptr<reference::FloatEntries> entries_;
  std::unique_ptr<ListIndex> index_;
  std::vector<EntryBlock> blocks_;
};

Topics& topics() {
  static Topics made;
  return made;
}

constexpr std::size_t kFew = 1000;   // probes: of them follows no share of the lists that makes comparing all better
constexpr std::size_t kMany = 8000;  // of them it does

void expect_nearly_all_the_same(const std::vector<std::int64_t>& found, const std::vector<std::int64_t>& wanted) {
  std::size_t same = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) same += wanted[i] == found[i] ? 1 : 0;
  EXPECT_GE(same, wanted.size() * 99 / 100);
}

TEST(ListCells, FewListsAreComparedAndTheSameKeysFound) {
  Topics& some = topics();
  const auto all = some.find(kMany), opened = some.find(kFew);
  EXPECT_EQ(all.compared, static_cast<double>(some.lists()));
  EXPECT_LT(opened.compared, 0.35 * all.compared);
  expect_nearly_all_the_same(opened.ids, all.ids);
}

TEST(ListCells, WhatAQueryFindsDoesNotDependOnOthers) {
  Topics& some = topics();
  const auto together = some.find(kFew);
  for (std::size_t token = 0; token < kTokens; ++token) {
    const auto alone = some.find(token, token + 1, kFew, some.index_->chunks());
    for (std::size_t i = 0; i < kTopK; ++i) EXPECT_EQ(alone.ids[i], together.ids[token * kTopK + i]);
  }
}

TEST(ListCells, ListsOfChunksWithoutCellsAreAlwaysCompared) {
  Topics& some = topics();
  // As many keys as are found of each query, far along it, after all others.
  std::vector<float> far;
  for (std::size_t i = 0; i < kTokens * kTopK; ++i) {
    for (std::size_t d = 0; d < kHeadDim; ++d) far.push_back(100 * some.queries_[i / kTopK * kHeadDim + d]);
  }
  const reference::FloatEntries entries(far.data(), far.data(), kTokens * kTopK, kHeadDim);
  ListIndex index({.chunk = 1024, .lists = 64}, kHeadDim);
  index.update(some.exec_.micro(), entries.rows(), unwatched);
  std::vector<ListChunk> chunks(some.index_->chunks().begin(), some.index_->chunks().end());
  for (ListChunk chunk : index.chunks()) {
    EXPECT_EQ(chunk.cells.count, 0U);
    chunk.first_entry = kKeys;
    chunks.push_back(chunk);
  }
  some.blocks_ = {some.entries_->block(), entries.block()};
  const auto found = some.find(0, kTokens, kFew, chunks);
  EXPECT_LT(found.compared, 0.35 * static_cast<double>(some.lists()));
  for (const std::int64_t id : found.ids) EXPECT_GE(id, static_cast<std::int64_t>(kKeys));
}

TEST(ListCells, SeveralChunksHaveCells) {
  Topics& some = topics();
  constexpr std::size_t kHalf = kKeys / 2;
  const auto half = [&](std::size_t first) {
    const float* const keys = some.keys_.data() + first * kHeadDim;
    const reference::FloatEntries entries(keys, keys, kHalf, kHeadDim);
    return ListIndex::whole(kSettings, kHeadDim, some.exec_.micro(), entries.rows());
  };
  const auto first = half(0), second = half(kHalf);
  std::vector<ListChunk> chunks = {first->chunks().front(), second->chunks().front()};
  chunks[1].first_entry = kHalf;
  some.blocks_ = {some.entries_->block()};
  const auto all = some.find(0, kTokens, kMany, chunks), opened = some.find(0, kTokens, kFew, chunks);
  EXPECT_LT(opened.compared, 0.5 * all.compared);
  expect_nearly_all_the_same(opened.ids, all.ids);
}

TEST(ListCells, OneHeadMayHaveThemAndAnotherNot) {
  Topics& some = topics();
  ListIndex few({.chunk = std::size_t{1} << 18, .lists = 64}, kHeadDim);
  few.update(some.exec_.micro(), some.entries_->rows(), unwatched);
  ASSERT_EQ(few.chunks().size(), 1U);
  ASSERT_EQ(few.chunks().front().cells.count, 0U);
  const auto of = [&](const std::vector<ListChunk>& chunks) {
    const std::size_t heads = chunks.size(), rows = kTokens * heads * kTopK;
    std::vector<float> queries, scores(rows);
    for (std::size_t i = 0; i < kTokens * heads; ++i) {
      const auto query = some.queries_.begin() + static_cast<std::ptrdiff_t>(i / heads * kHeadDim);
      queries.insert(queries.end(), query, query + kHeadDim);
    }
    std::vector<std::int64_t> ids(rows);
    const std::vector<EntryBlock> blocks(heads, some.entries_->block());
    search_lists(some.exec_, {queries.data(), {kTokens, heads, kHeadDim}}, {blocks.data(), {heads, 1}},
                 {chunks.data(), {heads, 1}}, {.probes = kFew, .candidates = 2 * kTopK},
                 {ids.data(), {kTokens, heads, kTopK}}, {scores.data(), {kTokens, heads, kTopK}}, nullptr);
    return ids;
  };
  const ListChunk many = some.index_->chunks().front(), others = few.chunks().front();
  const auto both = of({many, others}), one = of({many}), other = of({others});
  for (std::size_t token = 0; token < kTokens; ++token) {
    for (std::size_t i = 0; i < kTopK; ++i) {
      EXPECT_EQ(both[2 * token * kTopK + i], one[token * kTopK + i]);
      EXPECT_EQ(both[(2 * token + 1) * kTopK + i], other[token * kTopK + i]);
    }
  }
}

TEST(ListCells, NothingIsFoundWhereNoCellIsWorthALook) {
  Topics& some = topics();
  ListChunk chunk = some.index_->chunks().front();
  const std::vector<float> nothing((chunk.cells.count + 31) / 32 * 32, -INFINITY);
  chunk.cells.log_counts = nothing.data();
  some.blocks_ = {some.entries_->block()};
  const auto found = some.find(0, kTokens, kFew, {&chunk, 1});
  EXPECT_EQ(std::count(found.ids.begin(), found.ids.end(), -1), std::ssize(found.ids));
  EXPECT_EQ(found.compared, static_cast<double>(chunk.cells.count));
}

TEST(ListCells, AllListsAreComparedWhereWeightsAreAskedFor) {
  Topics& some = topics();
  some.blocks_ = {some.entries_->block()};
  std::vector<std::int64_t> ids(kTopK);
  std::vector<float> scores(kTopK);
  SearchCount count;
  const ListSearch search{.probes = kFew, .candidates = 2 * kTopK, .mass = 0.5, .count = &count};
  search_lists(some.exec_, {some.queries_.data(), {1, 1, kHeadDim}}, {some.blocks_.data(), {1, 1}},
               {some.index_->chunks().data(), {1, 1}}, search, {ids.data(), {1, 1, kTopK}},
               {scores.data(), {1, 1, kTopK}}, nullptr);
  EXPECT_EQ(count.lists, some.lists());
}

TEST(ListCells, HoldTheListsAndKnowTheirKeys) {
  Topics& some = topics();
  const ListChunk& chunk = some.index_->chunks().front();
  const ListCells& cells = chunk.cells;
  ASSERT_GE(cells.count, 100U);
  EXPECT_LE(cells.count, chunk.lists / ListCells::kLeastLists);
  EXPECT_EQ(cells.begins[0], 0U);
  EXPECT_EQ(cells.begins[cells.count], chunk.lists);
  for (std::size_t cell = 0; cell < cells.count; ++cell) {
    ASSERT_LT(cells.begins[cell], cells.begins[cell + 1]);
    double count = 0, trace = 0, expected_trace = 0;
    std::vector<double> sums(kHeadDim), squares(kHeadDim);
    for (std::size_t list = cells.begins[cell]; list < cells.begins[cell + 1]; ++list) {
      const KeyList& keys = chunk.list[list];
      count += static_cast<double>(keys.count);
      for (std::size_t i = 0; i < keys.count; ++i) {
        for (std::size_t d = 0; d < kHeadDim; ++d) {
          const auto x = static_cast<double>(some.keys_[keys.entries[i] * kHeadDim + d]);
          sums[d] += x;
          squares[d] += x * x;
        }
      }
    }
    EXPECT_NEAR(cells.log_counts[cell], std::log(count), 1e-5);
    for (std::size_t d = 0; d < kHeadDim; ++d) {
      const std::size_t at = (cell / 32 * kHeadDim + d) * 32 + cell % 32;
      EXPECT_NEAR(cells.means[at], sums[d] / count, 1e-4);
      trace += static_cast<double>(cells.variances[at]);
      expected_trace += squares[d] / count - sums[d] / count * (sums[d] / count);
    }
    EXPECT_NEAR(trace, expected_trace, 0.01 * expected_trace) << cell;
  }
  for (std::size_t absent = cells.count; absent % 32 != 0; ++absent) EXPECT_EQ(cells.log_counts[absent], -INFINITY);
}

}  // namespace
}  // namespace memlane
