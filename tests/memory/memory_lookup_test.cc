// Attention over the memory of documents, by every lookup, against one reference softmax.

#include <gtest/gtest.h>

#include <array>
#include <deque>
#include <initializer_list>
#include <map>
#include <mutex>
#include <span>

#include "memory/memory.h"
#include "tests/reference/random_memory.h"

namespace memlane {
namespace {

constexpr std::size_t kHeads = 4, kKvHeads = 2, kHeadDim = 16, kTokens = 5;
constexpr float kScale = 0.25F;
const EntryShape kShape{{2, 5}, kKvHeads, kHeadDim, DType::bf16};

Lookup lookup_of(std::string_view name, std::size_t top_k, std::string parameters = "") {
  Lookup lookup = Lookup::named(name);
  lookup.top_k = top_k;
  lookup.parameters = std::move(parameters);
  return lookup;
}

/// Attention outputs over a memory, [tokens, heads, head_dim], as the queries.
std::vector<float> outputs_over(CpuExec& exec, Memory& memory, std::span<const float> queries) {
  const std::array<std::size_t, 3> extents = {queries.size() / (kHeads * kHeadDim), kHeads, kHeadDim};
  PartialBuffer buffer;
  const AttentionPartial partial = buffer.get(extents[0], kHeads, kHeadDim);
  std::vector<float> out(queries.size());
  memory.attend(exec, 1, {queries.data(), extents}, kScale, partial);
  finish(exec, partial, {out.data(), extents});
  return out;
}

/// Documents made of windows of the given sizes, and queries to their memory.
class Library {
 public:
  Library(Lookup lookup, const std::vector<std::vector<std::size_t>>& documents, std::uint64_t seed = 1)
      : lookup_(std::move(lookup)), random_(seed) {
    for (const auto& windows : documents) {
      documents_.emplace_back(kShape, lookup_);
      for (const std::size_t count : windows) documents_.back().append(random_, count);
      documents_.back().memory().update_indexes(exec_);
    }
    reference::Random queries(seed + 1000);
    queries_ = queries.floats(kTokens * kHeads * kHeadDim, 3);
  }

  std::deque<reference::RandomDocument>& documents() { return documents_; }

  /// Attention outputs over the documents in the given order, [tokens, heads, head_dim].
  std::vector<float> attend(const std::vector<std::size_t>& order, std::size_t threads = 2,
                            void (*read_ahead)(const void*, std::size_t) = nullptr) {
    CpuExec exec(threads);
    Memory memory(kShape, lookup_);
    memory.set_read_ahead(read_ahead);
    for (const std::size_t each : order) memory.add(documents_[each].memory());
    return outputs_over(exec, memory, queries_);
  }

  /// The largest difference from the reference attention over each query's best `k` of all entries.
  double error(const std::vector<float>& found, std::size_t k) const {
    double worst = 0;
    for (std::size_t row = 0; row < kTokens * kHeads; ++row) {
      reference::Entries all;
      for (const auto& document : documents_) all.append(document.truth(1, row % kHeads / (kHeads / kKvHeads)));
      const reference::Row query(queries_.begin() + static_cast<std::ptrdiff_t>(row * kHeadDim),
                                 queries_.begin() + static_cast<std::ptrdiff_t>((row + 1) * kHeadDim));
      reference::Row scores;
      for (const reference::Row& key : all.keys) scores.push_back(reference::dot(query, key));
      const auto truth = reference::partial_attention(query, all.chosen(reference::top_k(scores, k)), kScale).output();
      for (std::size_t d = 0; d < kHeadDim; ++d)
        worst = reference::worse(worst, std::abs(found[row * kHeadDim + d] - truth[d]));
    }
    return worst;
  }

 private:
  Lookup lookup_;
  reference::Random random_;
  CpuExec exec_{2};
  std::deque<reference::RandomDocument> documents_;
  std::vector<float> queries_;
};

constexpr std::size_t kAll = 100000;

TEST(MemoryLookup, DenseAttendsToEveryEntryOfEveryDocument) {
  Library one(lookup_of("dense", 1), {{70, 3, 64}}), several(lookup_of("dense", 1), {{70, 3}, {1}, {130, 20}});
  EXPECT_LE(one.error(one.attend({0}), kAll), 2e-6);
  EXPECT_LE(several.error(several.attend({0, 1, 2}), kAll), 2e-6);
}

TEST(MemoryLookup, DocumentsWithoutEntriesChangeNothing) {
  for (const char* name : {"dense", "exact", "Flat", "int8"}) {
    Library library(lookup_of(name, 20), {{}, {50, 9}, {}});
    EXPECT_LE(library.error(library.attend({0, 1, 2}), std::string(name) == "dense" ? kAll : 20), 2e-6) << name;
  }
}

TEST(MemoryLookup, OrderOfDocumentsDoesNotMatter) {
  for (const char* name : {"dense", "exact", "Flat", "int8", "ivf"}) {
    Library library(lookup_of(name, 12), {{70, 3}, {40}, {130, 20}});
    const std::vector<float> in_order = library.attend({0, 1, 2}), reversed = library.attend({2, 0, 1});
    for (std::size_t i = 0; i < in_order.size(); ++i) EXPECT_NEAR(in_order[i], reversed[i], 2e-6) << name;
  }
}

TEST(MemoryLookup, OrderOfEntriesDoesNotMatter) {
  const Lookup dense = lookup_of("dense", 1);
  reference::Random random(3);
  const std::vector<float> keys = random.floats(90 * kKvHeads * kHeadDim), values = random.floats(keys.size());
  std::vector<float> results[2];
  for (const bool reversed : {false, true}) {
    std::vector<float> k(keys.size()), v(keys.size());
    constexpr std::size_t kRow = kKvHeads * kHeadDim;
    for (std::size_t i = 0; i < 90; ++i) {
      const std::size_t from = reversed ? 89 - i : i;
      std::copy_n(keys.begin() + static_cast<std::ptrdiff_t>(from * kRow), kRow,
                  k.begin() + static_cast<std::ptrdiff_t>(i * kRow));
      std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(from * kRow), kRow,
                  v.begin() + static_cast<std::ptrdiff_t>(i * kRow));
    }
    Library library(dense, {{}});
    CpuExec exec(1);
    Segment segment(kShape, 90);
    segment.fill(exec, 1, View<const float, 3>(k.data(), {90, kKvHeads, kHeadDim}),
                 View<const float, 3>(v.data(), {90, kKvHeads, kHeadDim}));
    library.documents()[0].memory().append(std::move(segment));
    results[reversed ? 1 : 0] = library.attend({0});
  }
  for (std::size_t i = 0; i < results[0].size(); ++i) EXPECT_NEAR(results[0][i], results[1][i], 2e-6);
}

TEST(MemoryLookup, ExactTopKEqualsTheReferenceTopK) {
  for (const std::size_t k : {1, 7, 60}) {
    Library library(lookup_of("exact", k), {{70, 3, 64}, {25}});
    EXPECT_LE(library.error(library.attend({0, 1}), k), 3e-6) << k;
  }
}

TEST(MemoryLookup, TopKOfAtLeastTheMemoryEqualsDense) {
  for (const char* name : {"exact", "Flat", "int8", "ivf"}) {
    for (const std::size_t k : {162, 163, 5000}) {
      Library top(lookup_of(name, k), {{70, 3, 64}, {25}}), dense(lookup_of("dense", 1), {{70, 3, 64}, {25}});
      const std::vector<float> found = top.attend({0, 1}), expected = dense.attend({0, 1});
      for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-5) << name << ", k " << k;
    }
  }
}

TEST(MemoryLookup, FlatProposesWhatTheExactScanFinds) {
  Library flat(lookup_of("Flat", 9), {{70, 3, 64}, {25}});
  EXPECT_LE(flat.error(flat.attend({0, 1}), 9), 3e-6);
}

// Below 39 keys for each list the index waits, and lookups scan; above, with every list searched, nothing may change.
TEST(MemoryLookup, IndexThatNeedsTrainingIsExactUntilItHasItsKeys) {
  Library waiting(lookup_of("IVF4,Flat", 9, "nprobe=1"), {{100, 55}});
  EXPECT_EQ(waiting.documents()[0].memory().index(1, 0), nullptr);
  EXPECT_LE(waiting.error(waiting.attend({0}), 9), 3e-6);
  Library trained(lookup_of("IVF4,Flat", 9, "nprobe=4"), {{100, 56}, {30}});
  EXPECT_NE(trained.documents()[0].memory().index(1, 0), nullptr);
  EXPECT_EQ(trained.documents()[1].memory().index(1, 0), nullptr);
  EXPECT_LE(trained.error(trained.attend({0, 1}), 9), 3e-6);
}

TEST(MemoryLookup, ResultsDoNotDependOnThreads) {
  for (const char* name : {"dense", "exact", "Flat", "HNSW8", "int8", "ivf"}) {
    Library library(lookup_of(name, 11), {{70, 3, 64}, {25}});
    const std::vector<float> expected = library.attend({0, 1}, 1);
    for (const std::size_t threads : {2, 3, 5})
      EXPECT_EQ(library.attend({0, 1}, threads), expected) << name << ", " << threads << " threads";
  }
}

// Rows of a window share the scan of a list and the keys that are scored again; a row alone shares nothing.
TEST(MemoryLookup, QueriesOfAWindowFindWhatTheyFindAlone) {
  constexpr std::size_t kMany = 700, kAlone = 5;
  for (const DType dtype : {DType::bf16, DType::f32}) {
    for (const char* parameters :
         {"int8", "ivf:chunk=256,lists=16,probes=20", "ivf:chunk=256,lists=16,probes=20,tail=on"}) {
      const Lookup lookup = [&] {
        const std::string_view all(parameters), name = all.substr(0, all.find(':'));
        return lookup_of(name, 13, std::string(all.substr(std::min(name.size() + 1, all.size()))));
      }();
      const EntryShape shape{{2, 5}, kKvHeads, kHeadDim, dtype};
      reference::Random random(3);
      reference::RandomDocument document(shape, lookup);
      for (const std::size_t count : {900, 77, 800}) document.append(random, count);
      CpuExec exec(2);
      document.memory().update_indexes(exec);
      Memory memory(shape, lookup);
      memory.add(document.memory());
      const std::vector<float> queries = random.floats(kMany * kHeads * kHeadDim, 3);
      const std::vector<float> together = outputs_over(exec, memory, queries);
      for (std::size_t i = 0; i < kAlone; ++i) {
        const std::size_t token = i * (kMany - 1) / (kAlone - 1), size = kHeads * kHeadDim;
        EXPECT_EQ(outputs_over(exec, memory, std::span(queries).subspan(token * size, size)),
                  std::vector<float>(together.begin() + static_cast<std::ptrdiff_t>(token * size),
                                     together.begin() + static_cast<std::ptrdiff_t>((token + 1) * size)))
            << parameters << ", token " << token;
      }
    }
  }
}

TEST(MemoryLookup, Int8FindsWhatTheExactScanFindsIfEnoughIsScoredAgain) {
  Library library(lookup_of("int8", 9, "rerank=4,chunk=50"), {{70, 3, 64}, {25}});
  EXPECT_LE(library.error(library.attend({0, 1}), 9), 3e-6);
}

TEST(MemoryLookup, ListsFindWhatTheExactScanFindsIfAllAreScanned) {
  Library library(lookup_of("ivf", 9, "rerank=4,chunk=64,lists=5,probes=1000,tail=off"), {{70, 3, 64}, {25}});
  EXPECT_LE(library.error(library.attend({0, 1}), 9), 3e-6);
}

TEST(MemoryLookup, EstimateOfTheRestIsNearerToDenseThanNothing) {
  const std::vector<std::vector<std::size_t>> windows = {{300, 200}, {180}};
  Library estimated(lookup_of("ivf", 8, "chunk=128,lists=8,probes=3,tail=on"), windows);
  Library cut(lookup_of("ivf", 8, "chunk=128,lists=8,probes=3"), windows);
  const double with = estimated.error(estimated.attend({0, 1}), kAll), without = cut.error(cut.attend({0, 1}), kAll);
  EXPECT_LT(with, 0.5 * without);
}

TEST(MemoryLookup, AutomaticIsDenseThenExactThenLists) {
  const Lookup automatic = lookup_of("auto", 77);
  EXPECT_EQ(resolve(automatic, 1000).lookup.kind, Lookup::Kind::dense);
  EXPECT_EQ(resolve(automatic, 200000).lookup.kind, Lookup::Kind::exact);
  EXPECT_EQ(resolve(automatic, 1000000).lookup.kind, Lookup::Kind::ivf);
  EXPECT_EQ(resolve(automatic, 1000000).lookup.top_k, 77U);
  EXPECT_NE(resolve(automatic, 1000000).reason, "");
  EXPECT_EQ(resolve(lookup_of("exact", 5), 10).lookup.kind, Lookup::Kind::exact);
  EXPECT_EQ(resolve(lookup_of("exact", 5), 10).reason, "");
}

/// What was asked for ahead.
struct Asked {
  static void take(const void* data, std::size_t bytes) {
    const std::scoped_lock lock(mutex);
    of_size[bytes].push_back(static_cast<const std::byte*>(data));
  }
  static inline std::mutex mutex;
  static inline std::map<std::size_t, std::vector<const std::byte*>> of_size;
};

TEST(MemoryLookup, ReadingAheadAsksForThePanelsOfKeysAndForTheValuesThatAreReadAndChangesNothing) {
  constexpr std::size_t kTop = 12, kRow = kHeadDim * 2, kPanel = kPanelEntries * kRow;
  for (const char* name : {"int8", "ivf"}) {
    Library library(lookup_of(name, kTop), {{70, 3}, {40}, {130, 20}});
    const std::vector<float> before = library.attend({0, 1, 2});
    Asked::of_size.clear();
    EXPECT_EQ(library.attend({0, 1, 2}, 2, Asked::take), before) << name;
    ASSERT_EQ(Asked::of_size.size(), 2U) << name;
    EXPECT_EQ(Asked::of_size[kRow].size(), kTokens * kHeads * kTop) << name;
    EXPECT_GE(Asked::of_size[kPanel].size(), kKvHeads) << name;
    for (const auto& [bytes, starts] : Asked::of_size) {
      for (const std::byte* const start : starts) {
        bool found = false;
        for (const auto& document : library.documents()) {
          for (std::size_t head = 0; head < kKvHeads; ++head) {
            for (const EntryBlock& block : document.memory().blocks(1, head)) {
              const auto* from = static_cast<const std::byte*>(bytes == kPanel ? block.keys : block.values);
              const std::size_t end = (bytes == kPanel ? panels_for(block.count) : block.count) * bytes;
              if (start < from || start >= from + end) continue;
              found = true;
              EXPECT_EQ(static_cast<std::size_t>(start - from) % bytes, 0U) << name;
            }
          }
        }
        EXPECT_TRUE(found) << name;
      }
    }
  }
}

TEST(MemoryLookup, SeesWhatADocumentGainsLater) {
  Library library(lookup_of("dense", 1), {{10}});
  Memory memory(kShape, lookup_of("dense", 1));
  memory.add(library.documents()[0].memory());
  reference::Random random(8);
  library.documents()[0].append(random, 6);
  EXPECT_EQ(memory.entries(), 16U);
  EXPECT_LE(library.error(library.attend({0}), kAll), 2e-6);
}

/// What a memory keeps of its documents' blocks follows them.
TEST(MemoryLookup, SeesEveryChangeOfADocument) {
  reference::Random random(8);
  const std::vector<float> queries = random.floats(kTokens * kHeads * kHeadDim);
  CpuExec exec(2);
  const auto made = [&](std::initializer_list<std::size_t> windows) {
    reference::RandomDocument document(kShape, lookup_of("dense", 1));
    for (const std::size_t count : windows) document.append(random, count);
    return std::move(document.memory());
  };
  DocumentMemory first = made({10, 40, 7}), second = made({33});
  Memory memory(kShape, lookup_of("dense", 1));
  memory.add(first);
  memory.add(second);
  std::vector<float> before = outputs_over(exec, memory, queries);
  const auto expect_seen = [&](const char* change) {
    Memory fresh(kShape, lookup_of("dense", 1));
    fresh.add(first);
    fresh.add(second);
    const std::vector<float> after = outputs_over(exec, memory, queries);
    EXPECT_EQ(after, outputs_over(exec, fresh, queries)) << change;
    EXPECT_NE(after, before) << change;
    before = after;
  };
  second.append(Segment(kShape, 64));
  expect_seen("append");
  first.keep(std::array<std::size_t, 2>{0, 2});
  expect_seen("keep");
  first.keep_newest(7);
  expect_seen("keep_newest");
  const Segment other = [&] {
    Segment segment(kShape, 7);
    const std::vector<float> rows = random.floats(7 * kKvHeads * kHeadDim);
    for (std::size_t slot = 0; slot < kShape.layers.size(); ++slot) {
      segment.fill(exec, slot, {rows.data(), {7, kKvHeads, kHeadDim}}, {rows.data(), {7, kKvHeads, kHeadDim}});
    }
    return segment;
  }();
  const std::byte* const bytes = other.bytes().data();
  first.use_stored({&bytes, 1});
  expect_seen("use_stored");
  first = made({10, 40});
  expect_seen("another document");
}

TEST(MemoryLookup, RefusesADocumentOfAnotherShape) {
  EntryShape other = kShape;
  other.dtype = DType::f32;
  const DocumentMemory document(other, Lookup{});
  Memory memory(kShape, Lookup{});
  EXPECT_THROW(memory.add(document), std::logic_error);
}

TEST(MemoryLookup, IsNamedAsOnTheCommandLine) {
  for (const char* name : {"dense", "exact", "int8", "ivf", "auto", "Flat", "IVF256,Flat"})
    EXPECT_EQ(Lookup::named(name).name(), name);
  EXPECT_EQ(Lookup::named("IVF256,Flat").kind, Lookup::Kind::faiss);
  EXPECT_EQ(Lookup().kind, Lookup::Kind::dense);
}

}  // namespace
}  // namespace memlane
