#include "base/read_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

namespace bitctl {
namespace {

TEST(KernelFile, AnErrorWhileItIsReadIsNoContent) {
  // Opens, and cannot be read at its beginning: as the files of a process that goes at that moment.
  const std::string path = "/proc/self/mem";
  EXPECT_EQ(read_kernel_file(path), "");
  std::ifstream file(path);
  EXPECT_THROW(std::string((std::istreambuf_iterator<char>(file)), {}), std::ios_base::failure)
      << "control: why it is not done that way";
}

TEST(KernelFile, TheWholeOfAFileWithoutASize) {
  EXPECT_TRUE(read_kernel_file("/proc/self/status").starts_with("Name:"));
  EXPECT_EQ(read_kernel_file("/proc/self/none"), "");
}

}  // namespace
}  // namespace bitctl
