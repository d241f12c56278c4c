#include "checkpoint/commit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <regex>
#include <set>

#include "checkpoint/catalog.h"
#include "checkpoint/folders.h"
#include "failing_file_ops.h"
#include "step_image.h"
#include "temporary_folder.h"

namespace bitctl {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using How = FailingFileOps::How;

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

// Names that a reader would look at: everything but the locks.
std::vector<std::string> left_in(const std::string& folder) {
  auto names = names_in(folder);
  std::erase(names, ".lock");
  std::erase(names, ".writer.lock");
  return names;
}

TEST(SaveStep, MakesAFolderThatVerifies) {
  const TemporaryFolder folder;
  const TestStep step(120);
  const auto saved = save_step(folder.path(), step.image, {});
  ASSERT_TRUE(saved) << saved.error().message;
  EXPECT_THAT(left_in(folder.path()), ElementsAre("step-000000120"));
  EXPECT_THAT(names_in(folder / "step-000000120"),
              ElementsAre("manifest.json", "model.safetensors", "training.safetensors"));
  const auto manifest = verify_step({120, folder / "step-000000120"});
  ASSERT_TRUE(manifest) << manifest.error().message;
  EXPECT_EQ(manifest->attempt, 1u);
  EXPECT_EQ(manifest->tensor_check, "none");
  EXPECT_EQ(manifest->metrics.at("loss"), 0.5);
  EXPECT_EQ(std::filesystem::file_size(folder / "step-000000120/model.safetensors"), 4096u + 12003u);
}

// The order is the protocol: nothing gets its name before all of it is on the disk, nothing is acknowledged
// before its name is.
TEST(SaveStep, KeepsTheOrder) {
  const TemporaryFolder folder;
  const TestStep step(7);
  FailingFileOps ops;
  SaveOptions options;
  options.ops = &ops;
  options.on_committed = [&](const Saved&) { ops.note("acknowledge"); };
  options.retain = [&] { ops.note("retain"); };
  ASSERT_TRUE(save_step(folder.path(), step.image, options));
  std::vector<std::string> order;
  const std::regex stage("\\.tmp-step-[0-9]+-[0-9]+-[0-9a-f]+");
  for (std::string call : ops.log()) {
    call = std::regex_replace(call, stage, "STAGE");
    if (call.starts_with("fsync") || call.starts_with("rename") || call.starts_with("mkdir") ||
        call.find(' ') == std::string::npos)
      order.push_back(call);
  }
  EXPECT_THAT(order, ElementsAre("mkdir STAGE", "fsync model.safetensors", "fsync training.safetensors",
                                 "fsync manifest.json", "fsync STAGE", "rename2 step-000000007",
                                 "fsync " + std::filesystem::path(folder.path()).filename().string(),
                                 "acknowledge", "retain"));
}

// SQLite's loop: the Nth call fails, N = 1, 2, … until a save meets no failure; once, and for ever after.
class SaveStepFault : public testing::TestWithParam<std::tuple<How, bool>> {};

// The same on a file system without O_DIRECT.
class FailingFileOpsWithoutDirect : public FailingFileOps {
 public:
  using FailingFileOps::FailingFileOps;
  bool refuse = false;
  int open(const std::string& path, int flags, mode_t mode) override {
    if (!refuse || (flags & O_DIRECT) == 0) return FailingFileOps::open(path, flags, mode);
    errno = EINVAL;
    return -1;
  }
};

constexpr int kErrors[] = {EIO, ENOSPC, EDQUOT, EROFS, EINTR};

TEST_P(SaveStepFault, TheEarlierStepStandsAndNothingHalfWrittenStays) {
  const auto [how, without_direct] = GetParam();
  int failed_saves = 0;
  for (int n = 1;; ++n) {
    const TemporaryFolder folder;
    ASSERT_TRUE(save_step(folder.path(), TestStep(1, 'x').image, {}));
    FailingFileOpsWithoutDirect ops(n, kErrors[n % std::size(kErrors)], how);
    ops.refuse = without_direct;
    bool acknowledged = false;
    SaveOptions options;
    options.ops = &ops;
    options.on_committed = [&](const Saved&) { acknowledged = true; };
    const auto saved = save_step(folder.path(), TestStep(2, 'y').image, options);
    ASSERT_TRUE(verify_step({1, folder / "step-000000001"})) << n;
    if (acknowledged) {
      EXPECT_TRUE(verify_step({2, folder / "step-000000002"})) << n;
    } else {
      ++failed_saves;
      ASSERT_FALSE(saved) << n;
      EXPECT_TRUE(worth_another_try(saved.error())) << n;
      EXPECT_NE(saved.error().errno_value, 0) << n;
      // What cannot be renamed back or deleted while everything fails stands whole, or is swept by the next
      // writer.
      const bool stands = std::filesystem::exists(folder / "step-000000002");
      if (stands) {
        EXPECT_EQ(how, How::for_ever) << "not acknowledged, yet it stands; call " << n;
        EXPECT_TRUE(verify_step({2, folder / "step-000000002"})) << n;
      }
      sweep_stages(folder.path());
      EXPECT_EQ(left_in(folder.path()).size(), stands ? 2u : 1u) << n;
    }
    // The image is still there: the next try succeeds.
    ASSERT_TRUE(save_step(folder.path(), TestStep(2, 'y').image, {})) << n;
    ASSERT_TRUE(verify_step({2, folder / "step-000000002"})) << n;
    if (!ops.has_failed()) break;
  }
  EXPECT_GT(failed_saves, 10);
}

INSTANTIATE_TEST_SUITE_P(Each, SaveStepFault,
                         testing::Combine(testing::Values(How::once, How::for_ever), testing::Bool()),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param) == How::once ? "once" : "for_ever") +
                                  (std::get<1>(info.param) ? "_without_direct" : "");
                         });

// After a failed fsync the kernel may tell success for data that is gone, so the file is condemned: no second
// fsync of it, and every byte again, under another name.
TEST(SaveStep, AFailedFsyncCondemnsTheWholeStage) {
  const TestStep step(1);
  for (int nth = 1; nth <= 4; ++nth) {
    const TemporaryFolder folder;
    FailingFileOps ops(nth, EIO, How::once, "fsync");
    SaveOptions options;
    options.ops = &ops;
    EXPECT_FALSE(save_step(folder.path(), step.image, options));
    EXPECT_EQ(ops.count("fsync"), nth);
    EXPECT_EQ(ops.count("rename2"), 0);
    EXPECT_TRUE(left_in(folder.path()).empty());
    const int written = ops.count("pwrite");
    ASSERT_TRUE(save_step(folder.path(), step.image, options));
    EXPECT_EQ(ops.count("pwrite"), 2 * written);
    std::set<std::string> stages;
    for (const std::string& call : ops.log())
      if (call.starts_with("mkdir ")) stages.insert(call);
    EXPECT_EQ(stages.size(), 2u) << nth;
    EXPECT_TRUE(verify_step({1, folder / "step-000000001"}));
  }
}

TEST(SaveStep, IsTriedAgainAtAPaceThatGrows) {
  std::vector<int64_t> pace;
  for (int failures = 1; failures <= 8; ++failures)
    pace.push_back(std::chrono::duration_cast<seconds>(retry_delay(failures)).count());
  EXPECT_THAT(pace, ElementsAre(1, 2, 4, 8, 16, 30, 30, 30));
  EXPECT_EQ(retry_delay(1'000'000), seconds(30));
  EXPECT_EQ(retry_delay(0), seconds(1));
  for (const ErrorKind kind : {ErrorKind::io, ErrorKind::locked, ErrorKind::not_found, ErrorKind::timeout})
    EXPECT_TRUE(worth_another_try({kind, "", 0}));
  for (const ErrorKind kind : {ErrorKind::invalid, ErrorKind::damaged})
    EXPECT_FALSE(worth_another_try({kind, "", 0}));
}

TEST(SaveStep, ShortWritesAreContinued) {
  const TemporaryFolder folder;
  FailingFileOps ops;
  ops.short_write = 5000;
  SaveOptions options;
  options.ops = &ops;
  ASSERT_TRUE(save_step(folder.path(), TestStep(1).image, options));
  EXPECT_TRUE(verify_step({1, folder / "step-000000001"}));
}

TEST(SaveStep, TheSameContentAgainIsAcknowledgedAndToldApart) {
  const TemporaryFolder folder;
  ASSERT_TRUE(save_step(folder.path(), TestStep(5).image, {}));
  int acknowledged = 0;
  SaveOptions options;
  options.on_committed = [&](const Saved&) { ++acknowledged; };
  const auto again = save_step(folder.path(), TestStep(5).image, options);
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->unchanged);
  EXPECT_EQ(acknowledged, 1);
  EXPECT_TRUE(verify_step({5, folder / "step-000000005"}));
  EXPECT_THAT(left_in(folder.path()), ElementsAre("step-000000005"));
}

// Its manifest is what it was: what is acknowledged are the new bytes, never the old ones.
TEST(SaveStep, AStandingStepThatHasRottedIsReplacedByTheSameContent) {
  const TemporaryFolder folder;
  ASSERT_TRUE(save_step(folder.path(), TestStep(5).image, {}));
  const std::string path = folder / "step-000000005/model.safetensors";
  std::string bytes = read_text(path);
  bytes[bytes.size() / 2] ^= 1;
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  ASSERT_FALSE(verify_step({5, folder / "step-000000005"}));
  ASSERT_TRUE(save_step(folder.path(), TestStep(5).image, {}));
  EXPECT_TRUE(verify_step({5, folder / "step-000000005"}));
}

TEST(SaveStep, AnotherContentOfTheSameStepTakesItsPlaceAtOnce) {
  const TemporaryFolder folder;
  ASSERT_TRUE(save_step(folder.path(), TestStep(5, 'a').image, {}));
  const auto old = read_text(folder / "step-000000005/model.safetensors");
  ASSERT_TRUE(save_step(folder.path(), TestStep(5, 'b').image, {}));
  EXPECT_NE(read_text(folder / "step-000000005/model.safetensors"), old);
  EXPECT_TRUE(verify_step({5, folder / "step-000000005"}));
  EXPECT_THAT(left_in(folder.path()), ElementsAre("step-000000005"));
}

TEST(SaveStep, ABrokenFolderOfThatNameIsSetAside) {
  const TemporaryFolder folder;
  folder.write("step-000000005/model.safetensors", "torn");
  ASSERT_TRUE(save_step(folder.path(), TestStep(5).image, {}));
  EXPECT_TRUE(verify_step({5, folder / "step-000000005"}));
  const auto names = left_in(folder.path());
  ASSERT_EQ(names.size(), 2u);
  EXPECT_TRUE(names[0].starts_with(".bad-step-000000005-")) << names[0];
}

TEST(SaveStep, WaitsForAnotherWriterAndThenNamesIt) {
  const TemporaryFolder folder;
  const auto other = FileLock::acquire(folder / ".writer.lock", FileLock::Mode::exclusive, Duration::zero());
  ASSERT_TRUE(other);
  SaveOptions options;
  options.writer_limit = milliseconds(50);
  const auto saved = save_step(folder.path(), TestStep(1).image, options);
  ASSERT_FALSE(saved);
  EXPECT_EQ(saved.error().kind, ErrorKind::locked);
  EXPECT_THAT(saved.error().message, HasSubstr("pid " + std::to_string(getpid())));
  EXPECT_TRUE(left_in(folder.path()).empty());
}

// The kernel frees what a dead process held; one that is stopped holds on, and is named.
TEST(SaveStep, AHolderThatIsStoppedIsNamedAndADeadOneIsNoHindrance) {
  const TemporaryFolder folder;
  int told[2];
  ASSERT_EQ(::pipe(told), 0);
  const pid_t holder = ::fork();
  if (holder == 0) {
    const int fd = ::open((folder / ".writer.lock").c_str(), O_RDWR | O_CREAT, 0666);
    if (::flock(fd, LOCK_EX) == 0) [[maybe_unused]]
      const ssize_t n = ::write(told[1], "x", 1);
    ::raise(SIGSTOP);
    ::pause();
    ::_exit(0);
  }
  char x;
  ASSERT_EQ(::read(told[0], &x, 1), 1);
  int status = 0;
  ASSERT_EQ(::waitpid(holder, &status, WUNTRACED), holder);
  ASSERT_TRUE(WIFSTOPPED(status));
  SaveOptions options;
  options.writer_limit = milliseconds(50);
  const auto saved = save_step(folder.path(), TestStep(1).image, options);
  ASSERT_FALSE(saved);
  EXPECT_THAT(saved.error().message, HasSubstr("pid " + std::to_string(holder)));
  EXPECT_TRUE(worth_another_try(saved.error()));
  ::kill(holder, SIGKILL);
  ::waitpid(holder, nullptr, 0);
  EXPECT_TRUE(save_step(folder.path(), TestStep(1).image, options));
  ::close(told[0]);
  ::close(told[1]);
}

TEST(SaveStep, AReaderThatDoesNotLetGoDelaysTheRenameAndPostponesRetention) {
  const TemporaryFolder folder;
  ASSERT_TRUE(save_step(folder.path(), TestStep(1).image, {}));
  const auto reader = FileLock::acquire(folder / ".lock", FileLock::Mode::shared, Duration::zero());
  ASSERT_TRUE(reader);
  bool retained = false;
  SaveOptions options;
  options.reader_limit = milliseconds(50);
  options.retain = [&] { retained = true; };
  const auto saved = save_step(folder.path(), TestStep(2).image, options);
  ASSERT_TRUE(saved) << saved.error().message;
  EXPECT_THAT(saved->reader_in_the_way, HasSubstr("pid " + std::to_string(getpid())));
  EXPECT_FALSE(retained);
  EXPECT_TRUE(verify_step({2, folder / "step-000000002"}));
}

TEST(SaveStep, WhatTheTensorCheckRefusesIsNotCommitted) {
  const TemporaryFolder folder;
  SaveOptions options;
  options.check_tensors = [](const auto&) -> Result<std::string> {
    return fail(ErrorKind::invalid, "torch: no such shape");
  };
  const auto saved = save_step(folder.path(), TestStep(1).image, options);
  ASSERT_FALSE(saved);
  EXPECT_EQ(saved.error().message, "torch: no such shape");
  EXPECT_TRUE(left_in(folder.path()).empty());
}

TEST(SaveStep, SideFilesAreLinkedNotCopied) {
  const TemporaryFolder folder;
  folder.write(".side/abc/config.json", "{}");
  TestStep step(3);
  step.image.side_folder = folder / ".side/abc";
  const auto saved = save_step(folder.path(), step.image, {});
  ASSERT_TRUE(saved) << saved.error().message;
  EXPECT_EQ(std::filesystem::hard_link_count(folder / "step-000000003/config.json"), 2u);
  ASSERT_EQ(saved->manifest.side_files.size(), 1u);
  EXPECT_TRUE(verify_step({3, folder / "step-000000003"}));
}

TEST(SaveStep, WhatDiffersInMetricsOrSideFilesAloneIsSavedAgain) {
  const TemporaryFolder folder;
  folder.write(".side/abc/config.json", "{}");
  TestStep step(3);
  const auto save = [&] { return save_step(folder.path(), step.image, {})->unchanged; };
  EXPECT_FALSE(save());
  EXPECT_TRUE(save()) << "the control: the same again";
  step.image.metrics = {{"loss", 0.25}};
  EXPECT_FALSE(save());
  step.image.side_folder = folder / ".side/abc";
  EXPECT_FALSE(save());
  EXPECT_TRUE(save());
  const auto manifest = verify_step({3, folder / "step-000000003"});
  ASSERT_TRUE(manifest);
  EXPECT_EQ(manifest->metrics, (Json{{"loss", 0.25}}));
  EXPECT_EQ(manifest->side_files.size(), 1u);
}

TEST(SaveStep, AnExchangeThatCannotBeSyncedIsTakenBack) {
  const TemporaryFolder folder;
  ASSERT_TRUE(save_step(folder.path(), TestStep(1, 'x').image, {}));
  const std::string before = read_text(folder / "step-000000001/model.safetensors");
  FailingFileOps ops(5, EIO, How::once, "fsync");  // three files, the stage, the parent
  SaveOptions options;
  options.ops = &ops;
  EXPECT_FALSE(save_step(folder.path(), TestStep(1, 'y').image, options));
  EXPECT_TRUE(verify_step({1, folder / "step-000000001"}));
  EXPECT_EQ(read_text(folder / "step-000000001/model.safetensors"), before);
  EXPECT_EQ(left_in(folder.path()).size(), 1u);
}

// NFS knows neither RENAME_NOREPLACE nor RENAME_EXCHANGE.
class PlainRenames : public FileOps {
 public:
  int rename2(const std::string&, const std::string&, unsigned) override {
    errno = EINVAL;
    return -1;
  }
};

TEST(SaveStep, NeedsNoRenameFlags) {
  const TemporaryFolder folder;
  const std::string checkpoints = folder / "checkpoints";
  std::filesystem::create_directory(checkpoints);
  PlainRenames ops;
  SaveOptions options;
  options.ops = &ops;
  ASSERT_TRUE(save_step(checkpoints, TestStep(1, 'a').image, options));
  ASSERT_TRUE(save_step(checkpoints, TestStep(1, 'b').image, options))
      << "something else under the same name";
  ASSERT_TRUE(save_step(checkpoints, TestStep(2, 'c').image, options));
  EXPECT_TRUE(verify_step({1, checkpoints + "/step-000000001"}));
  EXPECT_EQ(left_in(checkpoints).size(), 2u);
  for (int step : {1, 2, 2}) {
    ASSERT_TRUE(publish_model(folder.path(), checkpoints + "/" + step_folder_name(step), ops));
    EXPECT_EQ(read_text(folder / "model/model.safetensors"),
              read_text(checkpoints + "/" + step_folder_name(step) + "/model.safetensors"));
  }
  EXPECT_THAT(names_in(folder.path()), ElementsAre("checkpoints", "model"));
}

TEST(PublishModel, IsHardLinksSwappedIn) {
  const TemporaryFolder folder;
  const std::string checkpoints = folder / "checkpoints";
  std::filesystem::create_directory(checkpoints);
  ASSERT_TRUE(save_step(checkpoints, TestStep(1, 'a').image, {}));
  ASSERT_TRUE(save_step(checkpoints, TestStep(2, 'b').image, {}));
  ASSERT_TRUE(publish_model(folder.path(), checkpoints + "/step-000000001"));
  const std::string first = read_text(folder / "model/model.safetensors");
  ASSERT_TRUE(publish_model(folder.path(), checkpoints + "/step-000000001")) << "idempotent";
  ASSERT_TRUE(publish_model(folder.path(), checkpoints + "/step-000000002"));
  EXPECT_NE(read_text(folder / "model/model.safetensors"), first);
  EXPECT_EQ(std::filesystem::hard_link_count(folder / "model/model.safetensors"), 2u);
  EXPECT_THAT(names_in(folder / "model"), ElementsAre("model.safetensors"));
  EXPECT_THAT(names_in(folder.path()), ElementsAre("checkpoints", "model"));
}

TEST(VerifyStep, FindsEveryDamage) {
  const TemporaryFolder folder;
  const std::string path = folder / "step-000000001";
  ASSERT_TRUE(save_step(folder.path(), TestStep(1).image, {}));
  const std::string model = path + "/model.safetensors";
  const std::string good = read_text(model);
  const auto with = [&](const std::string& file, const std::string& content) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << content;
    const auto manifest = verify_step({1, path});
    return manifest ? std::string() : manifest.error().message;
  };
  for (const size_t at :
       {size_t{0}, size_t{9}, size_t{4000}, size_t{4096}, good.size() / 2, good.size() - 1}) {
    std::string flipped = good;
    flipped[at] = static_cast<char>(flipped[at] ^ 1);
    EXPECT_NE(with(model, flipped), "") << "bit flipped at byte " << at;
  }
  std::string flipped = good;
  flipped[good.size() - 1] = static_cast<char>(flipped[good.size() - 1] ^ 1);
  EXPECT_THAT(with(model, flipped), HasSubstr("tensor b"));
  EXPECT_THAT(with(model, good.substr(0, good.size() - 1)), HasSubstr("bytes where the manifest says"));
  EXPECT_THAT(with(model, good + "x"), HasSubstr("bytes where the manifest says"));
  EXPECT_EQ(with(model, good), "");

  const std::string manifest = read_text(path + "/manifest.json");
  for (size_t size = 0; size < manifest.size(); ++size)
    EXPECT_NE(with(path + "/manifest.json", manifest.substr(0, size)), "") << size;
  for (size_t at = 0; at < manifest.size(); ++at) {
    std::string changed = manifest;
    changed[at] = static_cast<char>(changed[at] ^ 2);
    EXPECT_NE(with(path + "/manifest.json", changed), "") << at;
  }
  std::filesystem::remove(path + "/manifest.json");
  EXPECT_THAT(inspect_step({1, path}).error().message, HasSubstr("no manifest.json"));
}

}  // namespace
}  // namespace bitctl
