#include "pulse/write.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "base/replace_file.h"
#include "pulse/read.h"
#include "unit/failing_file_ops.h"
#include "unit/schema_check.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using How = FailingFileOps::How;

const PulseStatus kOld{TrainingState::running, 1, 3, 0.5, "old", 1732800000};
const PulseStatus kNew{TrainingState::running, 1.5, 3, 0.25, "new", 1732800001};

// The file's status, after a look at everything that a reader and the schema may say about it.
PulseStatus checked(const std::string& path) {
  EXPECT_EQ(schema_complaints("pulse.v1", read_text(path)), "");
  const PulseRead read = read_pulse(path);
  if (const auto* good = std::get_if<PulseGood>(&read)) {
    EXPECT_TRUE(good->unknown_keys.empty());
    return good->status;
  }
  ADD_FAILURE() << path << " is not good";
  return {};
}

size_t files_in(const TemporaryFolder& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder.path()), {}));
}

TEST(WritePulse, WritesWhatIsReadBack) {
  const TemporaryFolder folder;
  const std::string path = folder / "training_status.json";
  for (const PulseStatus& status :
       {kOld, kNew, idle_status(0), PulseStatus{TrainingState::done, 3, 3, -1e-300, "ü \"\\\n\x01 日本", 7},
        PulseStatus{TrainingState::error, 1e308, 0.1, 1e308, "", std::numeric_limits<int64_t>::max()}}) {
    ASSERT_TRUE(write_pulse(path, status));
    EXPECT_EQ(read_text(path), to_file_bytes(status));
    EXPECT_EQ(checked(path), status);
  }
  EXPECT_EQ(files_in(folder), 1u);
}

TEST(WritePulse, AMessageOfAnyLengthAndKindStaysReadable) {
  const TemporaryFolder folder;
  const std::string path = folder / "p.json";
  for (const std::string& message :
       {std::string(1 << 20, '\x01'), std::string(1 << 20, '\xff'), std::string("é\xc3")}) {
    ASSERT_TRUE(write_pulse(path, {.message = message}));
    checked(path);
  }
  ASSERT_TRUE(write_pulse(path, {.message = std::string(4096, 'x')}));
  EXPECT_EQ(checked(path).message.size(), 4096u);
}

TEST(WritePulse, AnybodyMayReadTheFile) {
  const TemporaryFolder folder;
  const mode_t mask = ::umask(0027);
  ASSERT_TRUE(write_pulse(folder / "p.json", kNew));
  ::umask(mask);
  struct stat st {};
  ASSERT_EQ(::stat((folder / "p.json").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0640u);
}

TEST(WritePulse, RefusesWhatAReaderWouldRefuse) {
  const TemporaryFolder folder;
  const std::string path = folder / "p.json";
  ASSERT_TRUE(write_pulse(path, kOld));
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const PulseStatus& bad :
       {PulseStatus{.loss = kNaN}, PulseStatus{.loss = kInfinity}, PulseStatus{.loss = -kInfinity},
        PulseStatus{.epoch = -1}, PulseStatus{.epoch = kNaN}, PulseStatus{.epoch = kInfinity},
        PulseStatus{.total_epochs = -1}, PulseStatus{.total_epochs = kNaN}, PulseStatus{.timestamp = -1}}) {
    const Status status = write_pulse(path, bad);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().kind, ErrorKind::invalid);
    EXPECT_THAT(status.error().message, HasSubstr(path));
  }
  EXPECT_EQ(checked(path), kOld);
}

// On disk before it is seen, and the name on disk before it is reported.
const std::vector<std::string> kCalls = {"open",   "write", "fsync", "close",
                                         "rename", "open",  "fsync", "close"};
constexpr int kRename = 5;

TEST(WritePulse, MakesTheseCallsInThisOrder) {
  const TemporaryFolder folder;
  FailingFileOps ops;
  ASSERT_TRUE(write_pulse(folder / "p.json", kNew, ops));
  EXPECT_EQ(ops.calls(), kCalls);
}

// Each call of a write fails in turn, once or from then on, until a write meets no failure any more.
class AnyCallFails : public testing::TestWithParam<std::tuple<How, int>> {};

TEST_P(AnyCallFails, AndTheFileIsWholeAndAlone) {
  const auto [how, error] = GetParam();
  for (int nth = 1;; ++nth) {
    const TemporaryFolder folder;
    const std::string path = folder / "training_status.json";
    ASSERT_TRUE(write_pulse(path, kOld));
    FailingFileOps ops(nth, error, how);
    const Status status = write_pulse(path, kNew, ops);
    if (!ops.has_failed()) {
      EXPECT_TRUE(status);
      EXPECT_EQ(nth, static_cast<int>(kCalls.size()) + 1);
      break;
    }
    SCOPED_TRACE(ops.first_failed() + " is call " + std::to_string(nth));
    // The last close, of the folder, has nothing left to tell.
    EXPECT_EQ(status.has_value(), nth == static_cast<int>(kCalls.size()));
    EXPECT_EQ(checked(path), nth > kRename ? kNew : kOld);
    // Where unlink has failed too, it is left to the sweep of whoever holds the lock next.
    if (how == How::for_ever) sweep_temporary_files(path);
    EXPECT_EQ(files_in(folder), 1u);
  }
}

INSTANTIATE_TEST_SUITE_P(Errors, AnyCallFails,
                         testing::Combine(testing::Values(How::once, How::for_ever),
                                          testing::Values(EIO, ENOSPC, EROFS, EACCES)));

TEST(WritePulse, AFailedFsyncIsNeverRetried) {
  const TemporaryFolder folder;
  FailingFileOps ops(3, EIO);
  const Status status = write_pulse(folder / "p.json", kNew, ops);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().errno_value, EIO);
  EXPECT_THAT(ops.calls(), ElementsAre("open", "write", "fsync", "close", "unlink"));
  EXPECT_EQ(files_in(folder), 0u);
}

// Writes one byte a call.
class OneByteOps : public FileOps {
 public:
  ssize_t write(int fd, const void* data, size_t) override { return FileOps::write(fd, data, 1); }
};

TEST(WritePulse, ShortWritesAreContinued) {
  const TemporaryFolder folder;
  OneByteOps ops;
  ASSERT_TRUE(write_pulse(folder / "p.json", kNew, ops));
  EXPECT_EQ(checked(folder / "p.json"), kNew);
}

TEST(SchemaCheck, CanFail) {
  EXPECT_NE(schema_complaints("pulse.v1", R"({"status":"running"})"), "");
  const std::string extra = to_file_bytes(kNew).insert(1, R"("step":1,)");
  EXPECT_NE(schema_complaints("pulse.v1", extra), "");
}

}  // namespace
}  // namespace bitctl
