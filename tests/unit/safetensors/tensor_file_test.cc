#include "safetensors/tensor_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "base/fd.h"
#include "base/lock.h"
#include "unit/safetensors/sample_files.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

using std::chrono::milliseconds;

// Two tensors, the second not aligned.
std::string sample() {
  return file_of("{" + entry("a", "U8", "[3]", 0, 3) + "," + entry("b", "I32", "[2]", 3, 11) + "}") +
         std::string("abc\1\0\0\0\2\0\0\0", 11);
}

class TensorFileTest : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::string path_ = folder_.write("model.safetensors", sample());
};

TEST_F(TensorFileTest, MappedAndReadGiveTheSameBytes) {
  for (const bool map : {true, false}) {
    const auto file = TensorFile::open(path_, {.map = map});
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_EQ((*file)->mapped(), map);
    EXPECT_EQ((*file)->file_bytes(), sample().size());
    EXPECT_EQ((*file)->bytes(*(*file)->header().find("a")), "abc");
    EXPECT_EQ((*file)->bytes(*(*file)->header().find("b")), std::string_view("\1\0\0\0\2\0\0\0", 8));
    (*file)->populate(0, (*file)->file_bytes());
    (*file)->populate(5, 1);
    (*file)->populate((*file)->file_bytes(), 1);
    (*file)->populate(1, UINT64_MAX);
  }
}

TEST_F(TensorFileTest, TheMemoryOutlivesThePath) {
  for (const bool map : {true, false}) {
    const auto file = TensorFile::open(path_, {.map = map});
    ASSERT_TRUE(file);
    std::string other = sample();
    other.replace(other.size() - 11, 3, "xyz");
    const std::string replacement = folder_.write("new", other);
    ASSERT_EQ(::rename(replacement.c_str(), path_.c_str()), 0);
    EXPECT_EQ((*file)->bytes((*file)->header().tensors[0]), "abc");
    ASSERT_EQ(::unlink(path_.c_str()), 0);
    EXPECT_EQ((*file)->bytes((*file)->header().tensors[0]), "abc");
    folder_.write("model.safetensors", sample());
  }
}

TEST_F(TensorFileTest, SymbolicLinksAreFollowed) {
  const std::string link = folder_ / "link";
  ASSERT_EQ(::symlink("model.safetensors", link.c_str()), 0);
  EXPECT_TRUE(TensorFile::open(link));
}

TEST_F(TensorFileTest, OnlyARegularFileIsTaken) {
  const std::string fifo = folder_ / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  for (const std::string& path : {fifo, folder_.path(), std::string("/dev/zero")}) {
    const auto file = TensorFile::open(path);
    ASSERT_FALSE(file);
    EXPECT_EQ(file.error().message, path + ": not a regular file");
    EXPECT_EQ(file.error().kind, ErrorKind::damaged);
  }
  const auto missing = TensorFile::open(folder_ / "missing");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().kind, ErrorKind::not_found);
}

TEST_F(TensorFileTest, DamageNamesThePath) {
  const auto file = TensorFile::open(folder_.write("bad", sample() + "x"));
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().message, (folder_ / "bad") + ": 1 trailing bytes after the last tensor");
  EXPECT_FALSE(TensorFile::open(folder_.write("empty", "")));
}

TEST_F(TensorFileTest, EveryTruncatedFileIsRefused) {
  for (size_t size = 0; size < sample().size(); ++size) {
    const auto file = TensorFile::open(folder_.write("cut", sample().substr(0, size)));
    ASSERT_FALSE(file) << size;
    EXPECT_EQ(file.error().kind, ErrorKind::damaged);
  }
}

TEST_F(TensorFileTest, StrictnessIsTheCallers) {
  const std::string path = folder_.write("spaced", file_of(" {}"));
  EXPECT_TRUE(TensorFile::open(path));
  EXPECT_FALSE(TensorFile::open(path, {.strictness = Strictness::strict}));
}

TEST_F(TensorFileTest, ALoneFileIsLockedOnItsOwnDescriptor) {
  const Fd writer(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(writer.get(), LOCK_EX), 0);
  const auto refused = TensorFile::open(path_, {.lock_limit = milliseconds(20)});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::locked);
  EXPECT_NE(refused.error().message.find("held by pid " + std::to_string(::getpid())), std::string::npos)
      << refused.error().message;
  ::flock(writer.get(), LOCK_UN);
  const auto file = TensorFile::open(path_, {.lock_limit = milliseconds(20)});
  ASSERT_TRUE(file);
  // Once the mapping stands there is no lock any more.
  EXPECT_EQ(::flock(writer.get(), LOCK_EX | LOCK_NB), 0);
}

// What its writer does to it before letting go is what the loader sees.
TEST_F(TensorFileTest, ALoneFileIsReadAfterItsWriterIsDone) {
  const Fd writer(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(writer.get(), LOCK_EX), 0);
  uint64_t size = 0;
  std::thread loader([&] {
    const auto file = TensorFile::open(path_);
    if (file) size = (*file)->file_bytes();
  });
  const std::string longer = file_of("{" + entry("a", "U8", "[300]", 0, 300) + "}", 300);
  std::this_thread::sleep_for(
      milliseconds(20));  // time to open; the test holds however far the loader has come
  ASSERT_EQ(::pwrite(writer.get(), longer.data(), longer.size(), 0), static_cast<ssize_t>(longer.size()));
  ::flock(writer.get(), LOCK_UN);
  loader.join();
  EXPECT_EQ(size, longer.size());
}

TEST_F(TensorFileTest, AFileOfARunWaitsForTheRunsLock) {
  const std::string path = folder_.write("run/checkpoints/step-000000001/model.safetensors", sample());
  const std::string lock_path = folder_.write("run/checkpoints/.lock", "");
  auto held = FileLock::acquire(lock_path, FileLock::Mode::exclusive, {});
  ASSERT_TRUE(held);
  const auto refused = TensorFile::open(path, {.lock_path = lock_path, .lock_limit = milliseconds(20)});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::locked);
  EXPECT_NE(refused.error().message.find("held by pid"), std::string::npos);

  // A loader that is waiting gets the file that lies there when the lock falls.
  std::string contents;
  std::thread loader([&] {
    const auto file = TensorFile::open(path, {.lock_path = lock_path});
    if (file) contents = (*file)->bytes((*file)->header().tensors[0]);
  });
  std::string next = sample();
  next.replace(next.size() - 11, 3, "new");
  folder_.write("run/checkpoints/step-000000001/model.safetensors", next);
  held = tl::unexpected(Error{});
  loader.join();
  EXPECT_EQ(contents, "new");
  EXPECT_TRUE(FileLock::acquire(lock_path, FileLock::Mode::exclusive, {}));
}

TEST_F(TensorFileTest, TheRunsLockIsFoundFromItsFiles) {
  const std::string step = folder_.write("run/checkpoints/step-000000001/model.safetensors", sample());
  const std::string model = folder_.write("run/model/model.safetensors", sample());
  EXPECT_EQ(run_lock_of(step), "");  // nobody has made it
  const std::string lock = folder_.write("run/checkpoints/.lock", "");
  EXPECT_EQ(run_lock_of(step), lock);
  EXPECT_EQ(run_lock_of(model), folder_ / "run/checkpoints/.lock");
  const std::string link = folder_ / "latest";
  ASSERT_EQ(::symlink("run", link.c_str()), 0);
  EXPECT_EQ(run_lock_of(link + "/model/model.safetensors"), lock);
  EXPECT_EQ(run_lock_of(path_), "");
  EXPECT_EQ(run_lock_of(folder_ / "missing"), "");
}

TEST(CanBeMapped, NotWhereAServerHasASay) {
  for (const uint64_t remote : {NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, FUSE_SUPER_MAGIC, V9FS_MAGIC})
    EXPECT_FALSE(can_be_mapped(remote));
  EXPECT_FALSE(can_be_mapped(CIFS_SUPER_MAGIC));
  EXPECT_FALSE(
      can_be_mapped(static_cast<uint64_t>(static_cast<int32_t>(SMB2_SUPER_MAGIC))));  // sign-extended
  for (const uint64_t local : {EXT4_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC})
    EXPECT_TRUE(can_be_mapped(local));
}

}  // namespace
}  // namespace bitctl
