#include <sys/stat.h>

#include "tests/apps/command_test.h"

namespace memlane {
namespace {

class BadDocument : public CommandTest {
 protected:
  /// As a document to ingest, alone and behind a good one, and as a file to generate from.
  void expect_refused_everywhere(const std::string& document, const Words& named) {
    const std::string good = write("good.txt", story(20, 1));
    expect_refused(ingest_words("m", {"--mem-layers", "2", document}), named);
    expect_refused(ingest_words("m", {"--mem-layers", "2", good, document}), named);
    expect_refused(Words{"generate", "--model", stories(), "--file", document}, named);
  }
};

TEST_F(BadDocument, ThatIsEmptyIsNamed) {
  expect_refused_everywhere(write("a.txt", ""), {path("a.txt"), "empty"});
}

TEST_F(BadDocument, ThatIsNotUtf8IsNamedWithTheByte) {
  expect_refused_everywhere(write("a.txt", "caf\xe9"), {path("a.txt"), "UTF-8", "0xe9", "offset 3", "iconv"});
  expect_refused_everywhere(write("b.txt", std::string(100000, 'a') + "\xed\xa0\x80"),
                            {path("b.txt"), "offset 100000"});
}

TEST_F(BadDocument, ThatIsMissingIsNamed) {
  expect_refused_everywhere(path("missing.txt"), {path("missing.txt"), "No such file"});
}

TEST_F(BadDocument, ThatIsAFolderIsNamed) {
  expect_refused_everywhere(folder().string(), {folder().string(), "regular file"});
}

TEST_F(BadDocument, ThatIsANamedPipeIsRefusedWithoutWaitingForAWriter) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  expect_refused_everywhere(path("pipe"), {path("pipe"), "regular file"});
}

TEST_F(BadDocument, OfSpacesIsNothingToRead) {
  expect_refused(ingest_words("m", {"--mem-layers", "2", write("a.txt", "   ")}), {path("a.txt"), "spaces"});
}

TEST_F(BadDocument, WithANameThatIsTooLongIsRefused) {
  const Words words = {"--mem-layers", "2", "--name", std::string(5000, 'n'), write("a.txt", story(20, 1))};
  expect_refused(ingest_words("m", words), {"5000 bytes", "shorter name"});
}

}  // namespace
}  // namespace memlane
