#include "memory/key_index.h"

#include <gmock/gmock.h>

#include <set>

#include "kernels/error.h"
#include "tests/reference/attention.h"
#include "tests/reference/float_entries.h"
#include "tests/reference/random_values.h"

namespace memlane {
namespace {

constexpr std::size_t kHeadDim = 16;

Lookup faiss_lookup(std::string factory, std::string parameters = "") {
  return {.kind = Lookup::Kind::faiss, .factory = std::move(factory), .parameters = std::move(parameters)};
}

/// Random keys and queries, and how many of the true best an index proposes.
class Keys {
 public:
  explicit Keys(std::size_t count) : count_(count) {
    reference::Random random(31);
    keys_ = random.floats(count * kHeadDim);
    queries_ = random.floats(kQueries * kHeadDim);
  }
  View<const float, 2> all() const { return {keys_.data(), {count_, kHeadDim}}; }

  std::unique_ptr<KeyIndex> indexed(const Lookup& lookup) const {
    auto index = make_key_index(lookup, kHeadDim);
    if (index->training_size() > 0) index->train(all());
    index->update(micro_kernels(detect_instruction_set()),
                  reference::FloatEntries(keys_.data(), nullptr, count_, kHeadDim).rows(), unwatched);
    return index;
  }

  std::vector<std::int64_t> proposals(const KeyIndex& index, std::size_t k) const {
    std::vector<std::int64_t> ids(kQueries * k, -7);
    index.search({queries_.data(), {kQueries, kHeadDim}}, {ids.data(), {kQueries, k}});
    return ids;
  }

  /// The part of the true best k that an index proposes.
  double recall(const KeyIndex& index, std::size_t k) const {
    const std::vector<std::int64_t> ids = proposals(index, k);
    double found = 0;
    for (std::size_t query = 0; query < kQueries; ++query) {
      const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(query * k);
      const std::set<std::int64_t> proposed(begin, begin + static_cast<std::ptrdiff_t>(k));
      for (const std::size_t id : reference::top_k(scores(query), k))
        found += proposed.contains(static_cast<std::int64_t>(id)) ? 1 : 0;
    }
    return found / static_cast<double>(kQueries * k);
  }

 private:
  static constexpr std::size_t kQueries = 40;

  reference::Row scores(std::size_t query) const {
    reference::Row result;
    const reference::Row q(queries_.begin() + static_cast<std::ptrdiff_t>(query * kHeadDim),
                           queries_.begin() + static_cast<std::ptrdiff_t>((query + 1) * kHeadDim));
    for (std::size_t i = 0; i < count_; ++i)
      result.push_back(
          reference::dot(q, reference::Row(keys_.begin() + static_cast<std::ptrdiff_t>(i * kHeadDim),
                                           keys_.begin() + static_cast<std::ptrdiff_t>((i + 1) * kHeadDim))));
    return result;
  }

  std::size_t count_;
  std::vector<float> keys_, queries_;
};

struct Expected {
  const char* factory;
  const char* parameters;
  double recall;
};

// Random keys without clusters are the hardest case for an approximate index; the bounds are well below what is
// reached.
class KeyIndexes : public ::testing::TestWithParam<Expected> {};

TEST_P(KeyIndexes, FindMostOfTheBestAndTheSameAfterSaving) {
  const Keys keys(600);
  const Lookup lookup = faiss_lookup(GetParam().factory, GetParam().parameters);
  const auto index = keys.indexed(lookup);
  EXPECT_EQ(index->size(), 600U);
  EXPECT_EQ(index->training_size(), 0U);
  const double recall = keys.recall(*index, 10);
  RecordProperty("recall", std::to_string(recall));
  EXPECT_GE(recall, GetParam().recall);
  const auto loaded = load_key_index(lookup, kHeadDim, index->save());
  EXPECT_EQ(loaded->size(), 600U);
  EXPECT_EQ(keys.proposals(*loaded, 10), keys.proposals(*index, 10));
}

INSTANTIATE_TEST_SUITE_P(Faiss, KeyIndexes,
                         ::testing::Values(Expected{"Flat", "", 1.0}, Expected{"IVF4,Flat", "nprobe=4", 1.0},
                                           Expected{"IVF8,Flat", "nprobe=2", 0.3}, Expected{"IVF8,Flat", "", 1.0},
                                           Expected{"HNSW32", "efSearch=128", 0.9}, Expected{"PQ8x4", "", 0.3},
                                           Expected{"SQ8", "", 0.9}, Expected{"PCA8,IVF4,Flat", "", 0.1},
                                           Expected{"IVF4,SQ8", "nprobe=4", 0.9}),
                         [](const auto& each) {
                           std::string name = std::string(each.param.factory) + "_" + each.param.parameters;
                           for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name;
                         });

TEST(KeyIndex, FillsUpWithNoneWhenAskedForMoreThanThereIs) {
  const Keys keys(7);
  for (const char* factory : {"Flat", "HNSW8"}) {
    const auto ids = keys.proposals(*keys.indexed(faiss_lookup(factory)), 9);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (i % 9 < 7) {
        EXPECT_TRUE(ids[i] >= 0 && ids[i] < 7) << factory;
      } else {
        EXPECT_EQ(ids[i], -1) << factory;
      }
    }
  }
  const auto empty = make_key_index(faiss_lookup("Flat"), kHeadDim);
  EXPECT_THAT(keys.proposals(*empty, 3), ::testing::Each(-1));
}

TEST(KeyIndex, SaysHowManyKeysTrainingNeeds) {
  EXPECT_EQ(make_key_index(faiss_lookup("Flat"), kHeadDim)->training_size(), 0U);
  EXPECT_EQ(make_key_index(faiss_lookup("HNSW32"), kHeadDim)->training_size(), 0U);
  EXPECT_EQ(make_key_index(faiss_lookup("IVF4,Flat"), kHeadDim)->training_size(), 39U * 4);
  EXPECT_EQ(make_key_index(faiss_lookup("IVF256,Flat"), kHeadDim)->training_size(), 39U * 256);
}

/// The message of the InputError that `function` throws.
template <class Function>
std::string refusal(Function&& function) {
  try {
    function();
  } catch (const InputError& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return "";
}

TEST(KeyIndex, RefusesWhatFaissRejectsInOneLineThatNamesIt) {
  const auto quotes = [](const char* text) {
    return ::testing::AllOf(::testing::HasSubstr(text), ::testing::Not(::testing::HasSubstr("\n")));
  };
  for (const char* factory : {"Flatt", "", "IVF,Flat", "IVF0,Flat", "PQ7", "nonsense", "IVF-4,Flat"}) {
    EXPECT_THAT(refusal([&] { make_key_index(faiss_lookup(factory), kHeadDim); }), quotes(factory)) << factory;
  }
  // FAISS makes these, and then fails or crashes, or searches by distance.
  for (const char* factory :
       {"IDMap,Flat", "IDMap2,HNSW8", "HNSW0", "HNSW1", "NSG16", "HNSW8_PQ4", "PCA999,Flat", "PCA4,HNSW0"}) {
    EXPECT_THAT(refusal([&] { make_key_index(faiss_lookup(factory), kHeadDim); }), quotes(factory)) << factory;
  }
  for (const char* parameters : {"nprobes=3", "nprobe", "nprobe=abc", "nprobe=0", "nprobe=-4"}) {
    EXPECT_THAT(refusal([&] { make_key_index(faiss_lookup("IVF4,Flat", parameters), kHeadDim); }), quotes(parameters))
        << parameters;
  }
  EXPECT_THAT(refusal([&] { make_key_index(faiss_lookup("HNSW8", "nprobe=4"), kHeadDim); }), quotes("nprobe=4"));
}

TEST(KeyIndex, RefusesBytesThatAreNoSuchIndex) {
  const Keys keys(200);
  const Lookup lookup = faiss_lookup("IVF4,Flat");
  const std::vector<std::byte> saved = keys.indexed(lookup)->save();
  for (const std::size_t size : {std::size_t{0}, std::size_t{3}, std::size_t{20}, saved.size() / 2, saved.size() - 1}) {
    EXPECT_THROW(load_key_index(lookup, kHeadDim, std::span(saved).first(size)), InputError) << size << " bytes";
  }
  std::vector<std::byte> other = saved;
  other[0] = std::byte{'?'};
  EXPECT_THROW(load_key_index(lookup, kHeadDim, other), InputError);
  EXPECT_THROW(load_key_index(lookup, kHeadDim + 1, saved), InputError);
}

}  // namespace
}  // namespace memlane
