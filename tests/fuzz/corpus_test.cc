// Every kept input of the fuzz targets, on the compilers and sanitizers of the other tests.

#include <gtest/gtest.h>

#include "tests/fuzz/targets.h"
#include "tests/runtime/test_files.h"

namespace memlane::fuzz {
namespace {

class Corpus : public ::testing::TestWithParam<Target> {};

TEST_P(Corpus, IsReadOrRefused) {
  std::size_t inputs = 0, read = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(source_dir() / "tests" / "fuzz" / "corpus" / GetParam().name)) {
    SCOPED_TRACE(entry.path());
    const std::string input = read_text(entry.path());
    EXPECT_NO_THROW(read +=
                    GetParam().run({reinterpret_cast<const std::uint8_t*>(input.data()), input.size()}) ? 1U : 0U);
    ++inputs;
  }
  EXPECT_GE(inputs, 2U);
  EXPECT_GE(read, 1U) << "they are of an older format: only their heads are looked at";
  EXPECT_NO_THROW(GetParam().run({}));
}

INSTANTIATE_TEST_SUITE_P(Of, Corpus, ::testing::ValuesIn(targets().begin(), targets().end()),
                         [](const auto& target) { return std::string(target.param.name); });

TEST(FuzzTargets, TakeARefusalOnlyIfItSaysSomething) {
  EXPECT_TRUE(accepts([] {}));
  EXPECT_FALSE(accepts([] { throw InputError("a.txt: expected something else"); }));
  EXPECT_THROW(accepts([] { throw InputError("?"); }), std::logic_error);
}

}  // namespace
}  // namespace memlane::fuzz
