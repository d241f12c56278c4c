#include "checkpoint/stage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>
#include <thread>

#include "base/fd.h"
#include "temporary_folder.h"

namespace bitctl {
namespace {

using testing::Each;
using testing::HasSubstr;
using testing::SizeIs;

constexpr size_t kBlock = 4 << 20;
constexpr size_t kBytes = 8 * kBlock + 12'345;

// The real calls, from several threads; what a test wants to know of them.
class WatchedOps : public FileOps {
 public:
  bool refuse_direct_open = false;
  bool refuse_direct_write = false;
  bool refuse_direct_read = false;
  size_t short_read = 0;
  int fail_write = 0;   // the Nth write of a block
  int fail_range = -1;  // errno of sync_file_range

  int open(const std::string& path, int flags, mode_t mode) override {
    if (refuse_direct_open && (flags & O_DIRECT) != 0) {
      errno = EINVAL;
      return -1;
    }
    return FileOps::open(path, flags, mode);
  }
  ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) override {
    {
      const std::lock_guard lock(mutex);
      threads.insert(std::this_thread::get_id());
      nice.push_back(::getpriority(PRIO_PROCESS, static_cast<id_t>(::gettid())));
      errno = EIO;
      if (fail_write > 0 && static_cast<int>(nice.size()) == fail_write) return -1;
      errno = EINVAL;
      if (refuse_direct_write && (::fcntl(fd, F_GETFL) & O_DIRECT) != 0) return -1;
    }
    return FileOps::pwrite(fd, data, size, offset);
  }
  ssize_t pread(int fd, void* data, size_t size, off_t offset) override {
    {
      const std::lock_guard lock(mutex);
      threads.insert(std::this_thread::get_id());
      nice.push_back(::getpriority(PRIO_PROCESS, static_cast<id_t>(::gettid())));
      errno = EINVAL;
      if (refuse_direct_read && (::fcntl(fd, F_GETFL) & O_DIRECT) != 0) return -1;
    }
    return FileOps::pread(fd, data, short_read > 0 ? std::min(size, short_read) : size, offset);
  }
  int sync_file_range(int fd, off_t offset, off_t size, unsigned flags) override {
    const std::lock_guard lock(mutex);
    ++ranges;
    if (fail_range < 0) return FileOps::sync_file_range(fd, offset, size, flags);
    errno = fail_range;
    return -1;
  }

  std::mutex mutex;
  std::set<std::thread::id> threads;
  std::vector<int> nice;  // of the thread of each write or read
  int ranges = 0;
};

class StageTest : public testing::Test {
 protected:
  StageTest() : content_(kBytes, '\0'), memory_(content_) {
    for (size_t i = 0; i < content_.size(); ++i) content_[i] = static_cast<char>(i * 7 + i / 4096);
    memory_ = PageCopy(content_);
  }
  Status write(const StageWork& work = {}) {
    Stage stage(folder_.path(), ops_);
    if (auto status = stage.write({{"data", header_.view(), memory_.view()}}, work); !status) return status;
    return stage.sync();
  }
  // Of "data" into another stage.
  Status link(const StageWork& work = {}) {
    std::filesystem::create_directories(folder_ / "next");
    Stage stage(folder_ / "next", ops_);
    if (auto status = stage.link({"data", header_.view(), memory_.view()}, path(), work); !status)
      return status;
    return stage.sync();
  }
  bool is_linked() const { return std::filesystem::exists(folder_ / "next/data"); }
  void flip(uint64_t byte) {
    std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(byte));
    const char was = static_cast<char>(file.get());
    file.seekp(static_cast<std::streamoff>(byte));
    file.put(static_cast<char>(was ^ 1));
  }
  std::string path() const { return folder_ / "data"; }
  std::string expected() const { return std::string(header_.view()) + content_; }

  // Pages of the file that the kernel keeps.
  size_t cached_pages() const {
    const Fd fd(::open(path().c_str(), O_RDONLY | O_CLOEXEC));
    const size_t bytes = expected().size();
    void* mapping = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd.get(), 0);
    std::vector<unsigned char> pages((bytes + 4095) / 4096);
    EXPECT_EQ(::mincore(mapping, bytes, pages.data()), 0);
    ::munmap(mapping, bytes);
    return static_cast<size_t>(std::count_if(pages.begin(), pages.end(), [](auto p) { return p & 1; }));
  }
  bool on_tmpfs() const {
    struct statfs st {};
    return ::statfs(folder_.path().c_str(), &st) == 0 && st.f_type == TMPFS_MAGIC;
  }

  TemporaryFolder folder_;
  WatchedOps ops_;
  std::string content_;
  PageCopy header_{std::string(4096, 'h')};
  PageCopy memory_;
};

TEST_F(StageTest, TwoWorkersWriteWhatIsSeenInOrder) {
  std::vector<uint64_t> seen;
  ASSERT_TRUE(write({[&](size_t file, uint64_t end) {
                       EXPECT_EQ(file, 0u);
                       seen.push_back(end);
                     },
                     {}}));
  EXPECT_EQ(read_text(path()), expected());
  ASSERT_THAT(seen, SizeIs(10));
  EXPECT_EQ(seen.front(), 0u) << "the header's block";
  for (size_t i = 1; i < seen.size(); ++i) EXPECT_EQ(seen[i], std::min(i * kBlock, kBytes));
}

TEST_F(StageTest, NothingStaysInThePageCache) {
  if (on_tmpfs()) GTEST_SKIP() << "a tmpfs is the page cache";
  for (const bool buffered : {false, true}) {
    ops_.refuse_direct_open = buffered;
    ASSERT_TRUE(write());
    EXPECT_EQ(cached_pages(), 0u) << (buffered ? "buffered" : "direct");
    ::unlink(path().c_str());
  }
  folder_.write("data", expected());
  EXPECT_GT(cached_pages(), kBytes / 4096 / 2) << "the control: a plain write";
}

TEST_F(StageTest, WithoutODirectItGoesThroughTheCacheAndOutOfIt) {
  ops_.refuse_direct_open = true;
  ASSERT_TRUE(write());
  EXPECT_EQ(read_text(path()), expected());
  EXPECT_EQ(ops_.ranges, 10);
}

TEST_F(StageTest, WhereODirectIsTakenAndThenRefusedItGoesOnWithout) {
  ops_.refuse_direct_write = true;
  ASSERT_TRUE(write());
  EXPECT_EQ(read_text(path()), expected());
  EXPECT_EQ(ops_.ranges, 10);
}

// The kernel tells an error of the writing back once for each descriptor.
TEST_F(StageTest, AnErrorOnTheWayOutOfTheCacheIsNotLost) {
  ops_.refuse_direct_open = true;
  ops_.fail_range = EIO;
  EXPECT_FALSE(write());
  ::unlink(path().c_str());
  ops_.fail_range = ENOSYS;
  EXPECT_TRUE(write()) << "a kernel without the call: fsync does it";
}

TEST_F(StageTest, TheFirstFailureStopsAllWorkers) {
  ops_.fail_write = 3;
  const auto status = write();
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("cannot write " + path()));
  EXPECT_LE(ops_.nice.size(), 5u) << "blocks were written after a failure";
}

TEST_F(StageTest, BesideATrainingOneIdleWorkerWrites) {
  ASSERT_TRUE(write({{}, [] { return true; }}));
  EXPECT_THAT(ops_.threads, SizeIs(1));
  EXPECT_FALSE(ops_.threads.contains(std::this_thread::get_id()));
  EXPECT_THAT(ops_.nice, Each(19));
  EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), 0) << "of the caller";
}

TEST_F(StageTest, ALinkIsReadByTwoWorkersAndSeenInOrder) {
  ASSERT_TRUE(write());
  ops_.threads.clear();
  std::vector<uint64_t> seen;
  ASSERT_TRUE(link({[&](size_t, uint64_t end) { seen.push_back(end); }, {}}));
  EXPECT_TRUE(is_linked());
  ASSERT_THAT(seen, SizeIs(10));
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_EQ(seen.back(), kBytes);
  EXPECT_EQ(read_text(folder_ / "next/data"), expected());
}

TEST_F(StageTest, ALinkLeavesNothingInThePageCache) {
  if (on_tmpfs()) GTEST_SKIP() << "a tmpfs is the page cache";
  ASSERT_TRUE(write());
  for (const bool buffered : {false, true}) {
    ops_.refuse_direct_open = buffered;
    ASSERT_TRUE(link());
    EXPECT_EQ(cached_pages(), 0u) << (buffered ? "buffered" : "direct");
    ::unlink((folder_ / "next/data").c_str());
  }
}

TEST_F(StageTest, ABitAnywhereKeepsAFileFromBeingLinked) {
  ASSERT_TRUE(write());
  const uint64_t last = expected().size() - 1;
  for (const uint64_t byte : {uint64_t{0}, uint64_t{4096}, 3 * kBlock + 17, last}) {
    for (const bool buffered : {false, true}) {
      ops_.refuse_direct_open = buffered;
      flip(byte);
      const auto refused = link();
      ASSERT_FALSE(refused) << byte;
      EXPECT_EQ(refused.error().kind, ErrorKind::damaged);
      EXPECT_FALSE(is_linked());
      flip(byte);
      ASSERT_TRUE(link()) << byte;
      ::unlink((folder_ / "next/data").c_str());
    }
  }
}

TEST_F(StageTest, ShortReadsAndARefusedDirectReadAreGoneOnFrom) {
  ASSERT_TRUE(write());
  ops_.short_read = 3 * 4096 + 100;
  ops_.refuse_direct_read = true;
  ASSERT_TRUE(link());
  flip(2 * kBlock + 1);
  ::unlink((folder_ / "next/data").c_str());
  EXPECT_FALSE(link());
}

TEST_F(StageTest, WhatIsNoFileOfThatSizeIsNotLinked) {
  EXPECT_FALSE(link()) << "nothing there";
  ASSERT_TRUE(write());
  ASSERT_EQ(::truncate(path().c_str(), static_cast<off_t>(expected().size() - 1)), 0);
  EXPECT_FALSE(link());
  std::filesystem::rename(path(), folder_ / "elsewhere");
  std::filesystem::create_symlink(folder_ / "elsewhere", path());
  EXPECT_FALSE(link()) << "behind a link";
  EXPECT_FALSE(is_linked());
}

TEST_F(StageTest, BesideATrainingOneIdleWorkerReads) {
  ASSERT_TRUE(write());
  ops_.threads.clear();
  ops_.nice.clear();
  ASSERT_TRUE(link({{}, [] { return true; }}));
  EXPECT_THAT(ops_.threads, SizeIs(1));
  EXPECT_FALSE(ops_.threads.contains(std::this_thread::get_id()));
  EXPECT_THAT(ops_.nice, Each(19));
}

TEST_F(StageTest, ItIsAtFullSpeedOnceTheTrainerIsDead) {
  const auto writes = [&] {
    const std::lock_guard lock(ops_.mutex);
    return ops_.nice.size();
  };
  ASSERT_TRUE(write({{}, [&] { return writes() < 3; }}));
  ASSERT_THAT(ops_.nice, SizeIs(10));
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(ops_.nice[i], i < 3 ? 19 : 0) << i;
  EXPECT_EQ(read_text(path()), expected());
}

// The idle worker saw no trainer and left; when we look, the next one lives.
TEST_F(StageTest, AnotherTrainerMayLiveBeforeWeLook) {
  const auto caller = std::this_thread::get_id();
  std::atomic<bool> was_dead = false;
  int looks = 0;
  ASSERT_TRUE(write({{}, [&] {
                       if (std::this_thread::get_id() != caller) return was_dead.exchange(true);
                       EXPECT_LT(++looks, 500) << "we wait for a worker that is gone";
                       return looks < 500;
                     }}));
  EXPECT_EQ(read_text(path()), expected());
}

}  // namespace
}  // namespace bitctl
