#include "memory/lost_pages.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>

#include "memory/mapped_file.h"
#include "tests/temporary_folder.h"

namespace memlane {
namespace {

/// Reads the third page of a file that was cut to one.
int read_lost_page(const std::filesystem::path& path) {
  constexpr std::size_t kPage = 4096;
  std::ofstream(path) << std::string(3 * kPage, 'x');
  const MappedFile other(path, "text");
  const MappedFile file(path, "text");
  std::filesystem::resize_file(path, kPage);
  const volatile auto* bytes = reinterpret_cast<const volatile char*>(file.bytes().data());
  return bytes[2 * kPage];
}

TEST(LostPages, EndTheProgramWithTheNameOfTheFile) {
  const TemporaryFolder folder;
  EXPECT_EXIT(
      {
        report_lost_pages();
        std::ofstream(folder.path() / "other") << "x";
        for (int i = 0; i < 1000; ++i) {  // mappings that are gone are forgotten
          const MappedFile gone(folder.path() / "other", "text");
        }
        read_lost_page(folder.path() / "book.txt");
      },
      ::testing::ExitedWithCode(2),
      "memlane: .*book.txt: cannot be read any more: the disk failed, or the file was cut");
}

TEST(LostPages, ElsewhereEndItAsEver) {
  EXPECT_DEATH(
      {
        report_lost_pages();
        raise(SIGBUS);
      },
      "");
}

}  // namespace
}  // namespace memlane
