// Memory looked at in pieces: the same bits, and a pause between.

#include <gtest/gtest.h>

#include <cstring>
#include <utility>

#include "memory/memory.h"
#include "tests/reference/random_memory.h"

namespace memlane {
namespace {

struct Case {
  const char* lookup;
  DType dtype;
  std::size_t tokens;
};

class Pieces : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr std::size_t kHeads = 4, kHeadDim = 40;
  const EntryShape shape_{{1, 3}, 2, kHeadDim, GetParam().dtype};

  Lookup lookup() const {
    Lookup result = Lookup::named(GetParam().lookup);
    result.top_k = 9;
    return result;
  }
  /// What queries get from two documents, with windows of several sizes.
  std::vector<float> attended(Memory::Pieces pieces) {
    reference::Random random(3);
    reference::RandomDocument first(shape_, lookup()), second(shape_, lookup());
    for (const std::size_t count : {64, 64, 64, 7}) first.append(random, count);
    for (const std::size_t count : {64, 1, 33, 5}) second.append(random, count);
    CpuExec exec(3);
    for (reference::RandomDocument* document : {&first, &second}) document->memory().update_indexes(exec);
    Memory memory(shape_, lookup());
    memory.add(first.memory());
    memory.add(second.memory());
    memory.set_pieces(std::move(pieces));
    const std::size_t tokens = GetParam().tokens;
    std::vector<float> queries = random.floats(tokens * kHeads * kHeadDim);
    if (shape_.dtype == DType::bf16) {
      for (float& query : queries) query = to_float(from_float<BFloat16>(query));
    }
    PartialBuffer buffer;
    const AttentionPartial out = buffer.get(tokens, kHeads, kHeadDim);
    memory.attend(exec, 1, {queries.data(), {tokens, kHeads, kHeadDim}}, 0.2F, out);
    std::vector<float> result(out.sum.data(), out.sum.data() + out.sum.size());
    result.insert(result.end(), out.max.data(), out.max.data() + out.max.size());
    result.insert(result.end(), out.weight.data(), out.weight.data() + out.weight.size());
    return result;
  }
};

TEST_P(Pieces, ChangeNoBit) {
  const std::vector<float> whole = attended({});
  for (const std::size_t bytes : {1, 5000, 20000, 1 << 30}) {
    int pauses = 0;
    const std::vector<float> in_pieces = attended({bytes, [&] { ++pauses; }});
    ASSERT_EQ(in_pieces.size(), whole.size());
    EXPECT_EQ(std::memcmp(in_pieces.data(), whole.data(), whole.size() * sizeof(float)), 0) << bytes;
    const std::string lookup = GetParam().lookup;
    if (lookup == "dense") {
      EXPECT_EQ(pauses, bytes == 1 ? 8 : bytes == (1 << 30) ? 0 : pauses);
    } else {
      EXPECT_GE(pauses, lookup == "exact" && bytes == 1 ? 9 : 1);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Of, Pieces,
                         ::testing::Values(Case{"dense", DType::f32, 1}, Case{"dense", DType::f32, 130},
                                           Case{"dense", DType::bf16, 1}, Case{"dense", DType::bf16, 40},
                                           Case{"dense", DType::bf16, 600}, Case{"exact", DType::f32, 70},
                                           Case{"exact", DType::bf16, 1}, Case{"exact", DType::bf16, 300},
                                           Case{"ivf", DType::bf16, 20}, Case{"Flat", DType::f32, 20}),
                         [](const auto& each) {
                           return std::string(each.param.lookup) + std::string(name_of(each.param.dtype)) +
                                  std::to_string(each.param.tokens);
                         });

}  // namespace
}  // namespace memlane
