#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "snapshot/snapshot.h"

namespace bitctl {
namespace {

constexpr size_t kBytes = 24 << 20;  // enough for every way to be tried

// Pieces of many sizes and alignments that cover `target` but for single bytes between them.
class Copied {
 public:
  explicit Copied(unsigned seed) : source_(kBytes), target_(kBytes, kUntouched) {
    std::mt19937 random(seed);
    for (char& byte : source_) byte = static_cast<char>(random() & 0x7f);
    for (size_t at = 0; at < kBytes;) {
      const size_t sizes[] = {0, 1, 3, 64, 1000, 4096, 70'001, 3'000'000};
      const size_t bytes = std::min(sizes[random() % std::size(sizes)], kBytes - at);
      items_.push_back({at, source_.data() + at, bytes});
      at += bytes + 1;
    }
    std::shuffle(items_.begin(), items_.end(), random);
  }

  bool copy() {
    std::ranges::fill(target_, kUntouched);
    bitctl_snapshot_copy(target_.data(), items_.data(), items_.size());
    std::vector<char> expected(kBytes, kUntouched);
    for (const bitctl_copy& item : items_) std::memcpy(expected.data() + item.to, item.from, item.bytes);
    return target_ == expected;
  }

 private:
  static constexpr char kUntouched = '\xaa';
  std::vector<char> source_, target_;
  std::vector<bitctl_copy> items_;
};

class SnapshotCopy : public testing::Test {
 protected:
  ~SnapshotCopy() override { bitctl_snapshot_force(0, 0); }
};

TEST_F(SnapshotCopy, EveryWayCopiesEveryByteAndNoOther) {
  Copied copied(1);
  for (const int threads : {1, 2})
    for (const int streaming : {0, 1}) {
      bitctl_snapshot_force(threads, streaming);
      EXPECT_TRUE(copied.copy()) << threads << " " << streaming;
    }
}

TEST_F(SnapshotCopy, TriesItsWaysOnTheWork) {
  Copied copied(2);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(copied.copy()) << i;
}

TEST_F(SnapshotCopy, NothingIsNothing) { bitctl_snapshot_copy(nullptr, nullptr, 0); }

// A data loader's worker has none of its parent's threads.
TEST_F(SnapshotCopy, AForkedChildCopiesToo) {
  Copied copied(3);
  bitctl_snapshot_force(2, 0);
  ASSERT_TRUE(copied.copy());
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    ::_exit(copied.copy() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_TRUE(copied.copy()) << "the parent's helper is still there";
}

TEST(SnapshotPopulate, MapsEveryPageAndChangesNone) {
  constexpr size_t kSize = 20 << 20;  // more than one step
  char* memory =
      static_cast<char*>(::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(memory, MAP_FAILED);
  memory[5] = 'x';
  if (bitctl_snapshot_populate(memory, kSize) != 0) GTEST_SKIP() << "the kernel cannot: " << strerror(errno);
  std::vector<unsigned char> resident(kSize / 4096);
  ASSERT_EQ(::mincore(memory, kSize, resident.data()), 0);
  for (const unsigned char page : resident) ASSERT_TRUE(page & 1);
  EXPECT_EQ(memory[5], 'x');
  EXPECT_EQ(memory[kSize - 1], 0);
  ::munmap(memory, kSize);
}

}  // namespace
}  // namespace bitctl
