// One index over the entries of several documents.

#include "memory/joint_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <set>

#include "kernels/error.h"
#include "memory/memory.h"
#include "tests/reference/random_memory.h"

namespace memlane {
namespace {

constexpr std::size_t kHeads = 4, kKvHeads = 2, kHeadDim = 16, kTokens = 5, kTopK = 12;
const EntryShape kShape{{2, 5}, kKvHeads, kHeadDim, DType::bf16};

Lookup ivf(std::string parameters) {
  Lookup lookup = Lookup::named("ivf");
  lookup.top_k = kTopK;
  lookup.parameters = std::move(parameters);
  return lookup;
}
const Lookup kAllLists = ivf("chunk=64,lists=8,probes=1000000");

/// Documents of 133, 40 and 190 entries in windows, without indexes, and a last one of 50 with lists of its own.
class JointIndexTest : public ::testing::Test {
 protected:
  JointIndexTest() {
    reference::Random random(1);
    for (const std::vector<std::size_t>& windows : std::vector<std::vector<std::size_t>>{{70, 63}, {40}, {90, 100}}) {
      documents_.emplace_back(kShape, Lookup());
      for (const std::size_t count : windows) documents_.back().append(random, count);
    }
    documents_.emplace_back(kShape, kAllLists);
    documents_.back().append(random, 50);
    documents_.back().memory().update_indexes(exec_);
    queries_ = random.floats(kTokens * kHeads * kHeadDim, 3);
  }

  std::vector<const DocumentMemory*> covered() const {
    return {&documents_[0].memory(), &documents_[1].memory(), &documents_[2].memory()};
  }

  /// What is selected of the last memory layer.
  std::vector<std::int64_t> ids(Memory& memory) {
    const auto selected = memory.select(exec_, 1, {queries_.data(), {kTokens, kHeads, kHeadDim}}, 0.25F);
    return {selected.ids.data(), selected.ids.data() + selected.ids.size()};
  }
  std::vector<std::int64_t> exact_ids(bool last = true) {
    Lookup exact = Lookup::named("exact");
    exact.top_k = kTopK;
    Memory memory(kShape, exact);
    for (const DocumentMemory* document : covered()) memory.add(*document);
    if (last) memory.add(documents_.back().memory());
    return ids(memory);
  }
  std::vector<std::int64_t> joint_ids(const JointIndex& joint, bool last = true) {
    Memory memory(kShape, kAllLists);
    memory.add(covered(), joint);
    if (last) memory.add(documents_.back().memory());
    return ids(memory);
  }

  std::vector<std::vector<std::byte>> made(CpuExec& exec) const {
    JointIndexMaker maker(exec, covered(), kAllLists);
    std::vector<std::vector<std::byte>> saved;
    while (saved.size() < maker.size()) saved.push_back(maker.next());
    return saved;
  }
  /// blobs: kept by the caller.
  JointIndex loaded(const std::vector<std::vector<std::byte>>& blobs) {
    return JointIndex::load(exec_, kShape, kAllLists,
                            std::vector<std::span<const std::byte>>(blobs.begin(), blobs.end()), {133, 40, 190});
  }

  CpuExec exec_{2};
  std::deque<reference::RandomDocument> documents_;
  std::vector<float> queries_;
};

TEST_F(JointIndexTest, CoversEveryEntryOfTheDocumentsOnce) {
  const auto saved = made(exec_);
  const JointIndex joint = loaded(saved);
  EXPECT_EQ(joint.entries(), 363U);
  EXPECT_EQ(joint.entries_of_documents(), (std::vector<std::size_t>{133, 40, 190}));
  EXPECT_GT(joint.bytes(), 363U * kHeadDim * kShape.layers.size() * kKvHeads);
  for (std::size_t slot = 0; slot < 2; ++slot) {
    for (std::size_t head = 0; head < kKvHeads; ++head) {
      EXPECT_EQ(joint.index(slot, head).size(), 363U);
      std::multiset<std::uint32_t> entries;
      for (const ListChunk& chunk : joint.index(slot, head).chunks()) {
        for (std::size_t list = 0; list < chunk.lists; ++list) {
          entries.insert(chunk.list[list].entries, chunk.list[list].entries + chunk.list[list].count);
        }
      }
      EXPECT_EQ(entries.size(), 363U);
      EXPECT_EQ(*entries.rbegin(), 362U);
      EXPECT_EQ(std::set<std::uint32_t>(entries.begin(), entries.end()).size(), 363U);
    }
  }
}

TEST_F(JointIndexTest, FindsWhatAnExactSearchFindsIfAllListsAreScanned) {
  const auto saved = made(exec_);
  const JointIndex joint = loaded(saved);
  EXPECT_EQ(joint_ids(joint, false), exact_ids(false));
  EXPECT_EQ(joint_ids(joint), exact_ids()) << "and in a document behind them";
}

TEST_F(JointIndexTest, IsTheSameOnAnyNumberOfThreads) {
  CpuExec alone(std::size_t{1}), many(std::size_t{3});
  EXPECT_EQ(made(alone), made(exec_));
  EXPECT_EQ(made(many), made(exec_));
}

TEST_F(JointIndexTest, IsWatchedWhileItIsMade) {
  std::size_t entries = 0;
  std::atomic<int> inside = 0;
  JointIndexMaker maker(exec_, covered(), kAllLists, [&](std::size_t more) {
    EXPECT_EQ(++inside, 1);
    entries += more;
    --inside;
  });
  for (std::size_t i = 0; i < maker.size(); ++i) maker.next();
  EXPECT_EQ(entries, maker.size() * (133 + 40 + 190));
}

TEST_F(JointIndexTest, EndsIfWhoWatchesThrows) {
  struct Enough {};
  CpuExec alone(1);
  const std::vector<std::vector<std::byte>> expected = made(alone);
  for (CpuExec* exec : {&alone, &exec_}) {
    bool stops = true;
    std::size_t calls = 0;
    JointIndexMaker maker(*exec, covered(), kAllLists, [&](std::size_t) {
      if (++calls == 3 && stops) throw Enough();
    });
    EXPECT_THROW(maker.next(), Enough);
    EXPECT_EQ(calls, 3U);
    stops = false;
    EXPECT_EQ(maker.next(), expected[0]) << "nothing half made is given out";
  }
}

TEST_F(JointIndexTest, IsRefusedIfWhatWasSavedDoesNotFit) {
  const auto saved = made(exec_);
  const auto refusal = [&](std::size_t count, const Lookup& lookup, std::vector<std::size_t> entries) -> std::string {
    const std::vector<std::span<const std::byte>> blobs(saved.begin(), saved.begin() + count);
    try {
      JointIndex::load(exec_, kShape, lookup, blobs, std::move(entries));
    } catch (const InputError& error) {
      return error.what();
    }
    return "was not refused";
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(refusal(3, kAllLists, {133, 40, 190}), HasSubstr("expected 4 indexes, found 3"));
  EXPECT_THAT(refusal(4, kAllLists, {133, 40}), HasSubstr("expected 173 keys in each, found 363"));
  EXPECT_THAT(refusal(4, ivf("chunk=32,lists=8"), {133, 40, 190}), HasSubstr("other chunks and lists"));
}

TEST_F(JointIndexTest, IsOfTheFirstDocumentsOfAMemoryAlone) {
  const auto saved = made(exec_);
  const JointIndex joint = loaded(saved);
  EXPECT_THROW(JointIndexMaker(exec_, covered(), Lookup::named("int8")), std::logic_error);
  EXPECT_THROW(JointIndexMaker(exec_, {}, kAllLists), std::logic_error);
  Memory later(kShape, kAllLists), others(kShape, kAllLists), exact(kShape, Lookup::named("exact"));
  later.add(documents_.back().memory());
  EXPECT_THROW(later.add(covered(), joint), std::logic_error);
  EXPECT_THROW(others.add(std::vector{covered()[1], covered()[0], covered()[2]}, joint), std::logic_error);
  EXPECT_THROW(exact.add(covered(), joint), std::logic_error);
}

}  // namespace
}  // namespace memlane
