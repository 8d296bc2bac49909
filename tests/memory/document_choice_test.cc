#include "memory/document_choice.h"

#include "tests/memory/memory_file_fixture.h"

namespace memlane {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using Ids = std::vector<std::uint32_t>;

class DocumentChoiceTest : public MemoryFileTest {
 protected:
  DocumentChoiceTest() {
    MemoryFileWriter writer = MemoryFileWriter::create(path(), header());
    for (const char* name : {"a.txt", "b.txt", "a, b.txt", "twice", "twice", "1", "gone"}) {
      writer.begin_document(document(name, 3));
    }
    writer.drop_documents(Ids{6});
  }
  Ids choose(const std::vector<std::string>& words) const {
    return choose_documents(MemoryFile::open(path()), "--documents", words);
  }
  std::string refused(const std::vector<std::string>& words) const {
    return refusal([&] { choose(words); });
  }
};

TEST_F(DocumentChoiceTest, TakesNamesAndIdsAloneOrWithCommas) {
  EXPECT_EQ(choose({"a.txt"}), Ids{0});
  EXPECT_EQ(choose({"4", "0"}), (Ids{0, 4}));
  EXPECT_EQ(choose({"b.txt,3,a.txt"}), (Ids{0, 1, 3}));
  EXPECT_EQ(choose({"b.txt", "b.txt,id:1"}), Ids{1}) << "each once";
  EXPECT_EQ(choose({"a, b.txt"}), Ids{2}) << "a name that has a comma";
  EXPECT_EQ(choose({"name:b.txt"}), Ids{1});
  EXPECT_TRUE(choose({}).empty());
}

TEST_F(DocumentChoiceTest, AsksWhichIfAWordMayMeanTwo) {
  EXPECT_THAT(refused({"twice"}), AllOf(StartsWith("--documents twice"), HasSubstr("3, 4"), HasSubstr("id:3")));
  EXPECT_THAT(refused({"1"}), AllOf(HasSubstr("5, 1"), HasSubstr("id:5")));
  EXPECT_EQ(choose({"id:1"}), Ids{1});
  EXPECT_EQ(choose({"name:1"}), Ids{5});
}

TEST_F(DocumentChoiceTest, SaysWhichThereAreIfThereIsNone) {
  for (const char* word : {"c.txt", "6", "id:6", "gone", "7", "-1", "0x1", "1e0", "id:", "name:", "", ",", "a.txt,",
                           "99999999999999999999", "a.txt,c.txt"}) {
    EXPECT_THAT(refused({word}), AllOf(StartsWith("--documents "), HasSubstr(path().string()), HasSubstr("0 'a.txt'"),
                                       HasSubstr("5 '1'"), Not(HasSubstr("'gone'"))))
        << word;
  }
}

TEST_F(DocumentChoiceTest, ListsAFewOfMany) {
  MemoryFileWriter writer = MemoryFileWriter::append_to(path());
  for (int i = 0; i < 20; ++i) writer.begin_document(document("more", 3));
  EXPECT_THAT(list_of_documents(MemoryFile::open(path())), HasSubstr("and 18 more"));
  EXPECT_EQ(list_of_documents(writer.stored()), "0 'a.txt', 1 'b.txt', 2 'a, b.txt', 3 'twice', 4 'twice', 5 '1'");
}

}  // namespace
}  // namespace memlane
