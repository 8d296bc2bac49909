#include "runtime/distraction.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace memlane {
namespace {

TEST(Distraction, CutsTextsInTurns) {
  std::vector<std::vector<std::int32_t>> texts(3);
  const std::size_t sizes[] = {25, 9, 30};
  for (std::size_t text = 0; text < 3; ++text) {
    texts[text].resize(sizes[text]);
    std::iota(texts[text].begin(), texts[text].end(), static_cast<std::int32_t>(100 * text));
  }
  const auto documents = cut_documents(texts, 6, 4, 4);
  ASSERT_EQ(documents.size(), 4U);
  for (const auto& [place, first] : {std::pair<std::size_t, int>{0, 0}, {1, 200}, {2, 10}, {3, 210}}) {
    EXPECT_EQ(documents[place].memory.size(), 6U);
    EXPECT_EQ(documents[place].targets.size(), 4U);
    EXPECT_EQ(documents[place].memory.front(), first);
    EXPECT_EQ(documents[place].targets.front(), first + 6) << "they follow";
  }
  EXPECT_EQ(cut_documents(texts, 6, 4, 99).size(), 5U) << "and no more than there are";
  EXPECT_TRUE(cut_documents(texts, 60, 4, 1).empty());
}

TEST(Distraction, TrialsAreOfDifferentDocumentsAndRepeatableBySeed) {
  const auto trials = make_trials(8, 8, 3), again = make_trials(8, 8, 3), others = make_trials(8, 8, 4);
  std::vector<std::size_t> rights;
  bool differ = false;
  for (std::size_t i = 0; i < 8; ++i) {
    rights.push_back(trials[i].right);
    EXPECT_EQ(trials[i].right, again[i].right);
    EXPECT_EQ(trials[i].distractors, again[i].distractors);
    differ = differ || trials[i].distractors != others[i].distractors;
    std::vector<std::size_t> all = trials[i].distractors;
    all.push_back(trials[i].right);
    std::sort(all.begin(), all.end());
    for (std::size_t each = 0; each < 8; ++each) EXPECT_EQ(all[each], each);
  }
  EXPECT_TRUE(differ);
  std::sort(rights.begin(), rights.end());
  EXPECT_EQ(std::unique(rights.begin(), rights.end()) - rights.begin(), 8);
  EXPECT_EQ(make_trials(1, 3, 1)[2].distractors.size(), 0U);
}

}  // namespace
}  // namespace memlane
