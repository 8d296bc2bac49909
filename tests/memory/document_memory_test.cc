#include "memory/document_memory.h"

#include <gtest/gtest.h>

#include <atomic>

#include "tests/reference/random_memory.h"

namespace memlane {
namespace {

Lookup lookup_named(std::string_view name, std::string parameters = "") {
  Lookup lookup = Lookup::named(name);
  lookup.parameters = std::move(parameters);
  return lookup;
}

const EntryShape kShape{{1, 3}, 2, 8, DType::bf16};

std::vector<std::span<const std::byte>> spans_of(const std::vector<std::vector<std::byte>>& saved) {
  return {saved.begin(), saved.end()};
}

/// The keys of a layer and head are those of `count` entries, in their order.
void expect_keys(reference::RandomDocument& document, std::size_t slot, std::size_t head, std::size_t count) {
  std::size_t entry = 0;
  for (const EntryBlock& block : document.memory().blocks(slot, head)) {
    for (std::size_t i = 0; i < block.count; ++i, ++entry) {
      float key[8];
      read_key(block, i, 8, key);
      EXPECT_EQ(reference::Row(key, key + 8), document.truth(slot, head).keys[entry]);
    }
  }
  EXPECT_EQ(entry, count);
}

TEST(DocumentMemory, KeepsEveryWindowInOrder) {
  reference::Random random(1);
  reference::RandomDocument document(kShape, Lookup{});
  for (const std::size_t count : {5, 64, 1, 33}) document.append(random, count);
  EXPECT_EQ(document.memory().entries(), 103U);
  for (std::size_t slot = 0; slot < 2; ++slot) {
    for (std::size_t head = 0; head < 2; ++head) {
      const auto blocks = document.memory().blocks(slot, head);
      ASSERT_EQ(blocks.size(), 4U);
      expect_keys(document, slot, head, 103);
    }
  }
}

TEST(DocumentMemory, IsEmptyBeforeTheFirstWindow) {
  const DocumentMemory memory(kShape, Lookup{});
  EXPECT_EQ(memory.entries(), 0U);
  EXPECT_EQ(memory.blocks(1, 1).size(), 0U);
  EXPECT_TRUE(memory.save_indexes().empty());
}

TEST(DocumentMemory, GoesOnWithStoredBytesInPlaceOfItsLastSegments) {
  reference::Random random(6);
  reference::RandomDocument document(kShape, Lookup{});
  for (const std::size_t count : {5, 64, 33}) document.append(random, count);
  DocumentMemory& memory = document.memory();
  std::vector<Buffer<std::byte>> stored;
  std::vector<const std::byte*> at;
  for (std::size_t i = 1; i < 3; ++i) {
    const auto bytes = memory.segments()[i].bytes();
    stored.emplace_back(bytes.size());
    std::copy(bytes.begin(), bytes.end(), stored.back().data());
    at.push_back(stored.back().data());
  }
  memory.use_stored(at);
  EXPECT_EQ(memory.entries(), 102U);
  EXPECT_EQ(memory.segments()[1].bytes().data(), at[0]);
  EXPECT_EQ(memory.segments()[2].bytes().data(), at[1]);
  document.append(random, 7);
  for (std::size_t slot = 0; slot < 2; ++slot) {
    for (std::size_t head = 0; head < 2; ++head) expect_keys(document, slot, head, 109);
  }
}

TEST(DocumentMemory, KeepsTheNewestSegments) {
  reference::Random random(7);
  reference::RandomDocument document(kShape, Lookup{});
  for (const std::size_t count : {4, 4, 2, 4}) document.append(random, count);
  DocumentMemory& memory = document.memory();
  memory.keep_newest(20);
  EXPECT_EQ(memory.entries(), 14U) << "there are fewer";
  memory.keep_newest(6);
  EXPECT_EQ(memory.entries(), 6U);
  ASSERT_EQ(memory.blocks(1, 0).size(), 2U);
  float key[8];
  read_key(memory.blocks(1, 0)[0], 1, 8, key);
  EXPECT_EQ(reference::Row(key, key + 8), document.truth(1, 0).keys[9]);
  memory.keep_newest(5);
  EXPECT_EQ(memory.entries(), 6U) << "segments stay whole";
  memory.keep_newest(4);
  EXPECT_EQ(memory.entries(), 4U);
  EXPECT_EQ(memory.segments().size(), 1U);
}

TEST(DocumentMemory, KeepsTheSegmentsThatItIsTold) {
  reference::Random random(8);
  reference::RandomDocument document(kShape, Lookup{});
  for (const std::size_t count : {4, 3, 2, 4}) document.append(random, count);
  DocumentMemory& memory = document.memory();
  memory.keep(std::vector<std::size_t>{0, 1, 2, 3});
  EXPECT_EQ(memory.entries(), 13U);
  memory.keep(std::vector<std::size_t>{1, 3});
  EXPECT_EQ(memory.entries(), 7U);
  ASSERT_EQ(memory.segments().size(), 2U);
  EXPECT_EQ(memory.segments()[0].count(), 3U);
  for (const std::size_t slot : {0, 1}) {
    ASSERT_EQ(memory.blocks(slot, 0).size(), 2U);
    float key[8];
    read_key(memory.blocks(slot, 0)[0], 2, 8, key);
    EXPECT_EQ(reference::Row(key, key + 8), document.truth(slot, 0).keys[6]);
    read_key(memory.blocks(slot, 0)[1], 1, 8, key);
    EXPECT_EQ(reference::Row(key, key + 8), document.truth(slot, 0).keys[10]);
  }
  EXPECT_THROW(memory.keep(std::vector<std::size_t>{0, 2}), std::logic_error);
  memory.keep({});
  EXPECT_EQ(memory.entries(), 0U);
}

TEST(DocumentMemory, HasNoIndexForDenseAndExactLookup) {
  reference::Random random(2);
  CpuExec exec(2);
  for (const char* name : {"dense", "exact"}) {
    reference::RandomDocument document(kShape, lookup_named(name));
    document.append(random, 9);
    document.memory().update_indexes(exec);
    EXPECT_EQ(document.memory().index(0, 0), nullptr);
    EXPECT_EQ(document.memory().indexed_entries(), 0U);
  }
}

TEST(DocumentMemory, IndexesCountOnlyOnceTheyHoldEveryEntry) {
  reference::Random random(3);
  CpuExec exec(3);
  reference::RandomDocument document(kShape, lookup_named("Flat"));
  document.append(random, 9);
  EXPECT_EQ(document.memory().index(1, 1), nullptr);
  document.memory().update_indexes(exec);
  ASSERT_NE(document.memory().index(1, 1), nullptr);
  EXPECT_EQ(document.memory().index(1, 1)->size(), 9U);
  document.append(random, 4);
  EXPECT_EQ(document.memory().index(1, 1), nullptr);
  document.memory().update_indexes(exec);
  EXPECT_EQ(document.memory().index(0, 0)->size(), 13U);
}

TEST(DocumentMemory, TrainsOnceWhenItHas39KeysForEachList) {
  reference::Random random(4);
  CpuExec exec(2);
  reference::RandomDocument document(kShape, lookup_named("IVF4,Flat"));
  document.append(random, 39 * 4 - 1);
  document.memory().update_indexes(exec);
  EXPECT_EQ(document.memory().index(0, 0), nullptr) << "one key short";
  document.append(random, 1);
  document.memory().update_indexes(exec);
  const KeyIndex* index = document.memory().index(0, 0);
  ASSERT_NE(index, nullptr);
  EXPECT_EQ(index->training_size(), 0U) << "trained";
  EXPECT_EQ(index->size(), 39U * 4);
  document.append(random, 50);
  document.memory().update_indexes(exec);
  EXPECT_EQ(document.memory().index(0, 0), index) << "the same index grew";
  EXPECT_EQ(index->size(), 39U * 4 + 50);
}

TEST(DocumentMemory, IsWatchedWhileItsIndexesAreBroughtUp) {
  reference::Random random(7);
  CpuExec exec(3);
  for (const auto& [name, parameters] :
       {std::pair{"Flat", ""}, {"IVF4,Flat", ""}, {"int8", "chunk=64"}, {"ivf", "chunk=16,lists=4"}}) {
    SCOPED_TRACE(name);
    reference::RandomDocument document(kShape, lookup_named(name, parameters));
    std::size_t entries = 0;
    std::atomic<int> inside = 0;
    const auto watch = [&](std::size_t more) {
      EXPECT_EQ(++inside, 1);
      entries += more;
      --inside;
    };
    document.append(random, 300);
    document.memory().update_indexes(exec, watch);
    EXPECT_EQ(entries, 4U * 300) << "of each layer and head";
    document.append(random, 77);
    document.memory().update_indexes(exec, watch);
    EXPECT_EQ(entries, 4U * 377);
    document.memory().update_indexes(exec, watch);
    EXPECT_EQ(entries, 4U * 377) << "nothing was missing";
  }
}

TEST(DocumentMemory, StopsBringingUpIndexesIfWhoWatchesThrows) {
  struct Enough {};
  reference::Random random(8);
  for (const std::size_t threads : {1, 3}) {
    CpuExec exec(threads);
    reference::RandomDocument document(kShape, lookup_named("ivf", "chunk=16,lists=4"));
    document.append(random, 400);
    std::size_t calls = 0;
    EXPECT_THROW(document.memory().update_indexes(exec,
                                                  [&](std::size_t) {
                                                    if (++calls == 3) throw Enough();
                                                  }),
                 Enough);
    EXPECT_EQ(calls, 3U);
    EXPECT_EQ(document.memory().index(0, 0), nullptr);
  }
}

TEST(DocumentMemory, TakesOverSavedIndexesAndAddsWhatTheyLack) {
  reference::Random random(5), again(5);
  CpuExec exec(2);
  reference::RandomDocument first(kShape, lookup_named("Flat")), second(kShape, lookup_named("Flat"));
  first.append(random, 60);
  second.append(again, 60);
  first.memory().update_indexes(exec);
  const auto saved = first.memory().save_indexes();
  ASSERT_EQ(saved.size(), 4U);
  second.memory().load_indexes(spans_of(saved), 60);
  EXPECT_EQ(second.memory().indexed_entries(), 60U);
  first.append(random, 25);
  second.append(again, 25);
  first.memory().update_indexes(exec);
  second.memory().update_indexes(exec);
  EXPECT_EQ(first.memory().save_indexes(), second.memory().save_indexes());
}

TEST(DocumentMemory, RefusesSavedIndexesThatDoNotFit) {
  reference::Random random(6);
  CpuExec exec(1);
  reference::RandomDocument document(kShape, lookup_named("Flat")), smaller(kShape, lookup_named("Flat"));
  document.append(random, 20);
  smaller.append(random, 10);
  document.memory().update_indexes(exec);
  const auto saved = document.memory().save_indexes();
  EXPECT_THROW(smaller.memory().load_indexes(spans_of(saved), 20), InputError) << "more than there are entries";
  EXPECT_THROW(document.memory().load_indexes(spans_of(saved), 19), InputError) << "another number of keys";
  auto missing = spans_of(saved);
  missing.pop_back();
  EXPECT_THROW(document.memory().load_indexes(missing, 20), InputError) << "an index short";
  EXPECT_EQ(document.memory().index(0, 0)->size(), 20U) << "as before";
}

}  // namespace
}  // namespace memlane
