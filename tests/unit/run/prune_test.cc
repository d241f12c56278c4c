#include "run/prune.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/lock.h"
#include "run/run_links.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;
using std::chrono::hours;
using testing::ElementsAre;
using testing::IsEmpty;

TEST(PrunedBy, EitherRuleTakes) {
  const std::vector<Duration> ages = {hours(1), hours(48), hours(24), hours(72)};
  EXPECT_THAT(pruned_by({.older_than = hours(24)}, ages), ElementsAre(1, 3)) << "older than, not as old as";
  EXPECT_THAT(pruned_by({.keep = 3}, ages), ElementsAre(3));
  EXPECT_THAT(pruned_by({.keep = 0}, ages), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(pruned_by({.older_than = hours(24), .keep = 3}, ages), ElementsAre(1, 3));
  EXPECT_THAT(pruned_by({}, ages), IsEmpty());
}

class RemoveRun : public testing::Test {
 protected:
  RemoveRun() {
    ::setenv("XDG_STATE_HOME", (root_ / "state").c_str(), 1);
    old_ = make("demo-20261120-145703");
    new_ = make("demo-20261121-145703");
    point_link(runs_ + "/latest", new_.id());
  }
  ~RemoveRun() override { ::unsetenv("XDG_STATE_HOME"); }

  RunFolder make(const std::string& id) {
    root_.write("runs/" + id + "/run.json", "{}");
    root_.write("runs/" + id + "/checkpoints/step-1/model.safetensors", std::string(100'000, 'x'));
    const RunFolder folder(fs::canonical(runs_ + "/" + id).string());
    list_run(folder);
    return folder;
  }

  std::vector<std::string> in_the_folder() {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(runs_)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  TemporaryFolder root_;
  std::string runs_ = fs::path(root_ / "runs").string();
  std::string list_ = root_ / "state/bitctl/runs";
  RunFolder old_{""};
  RunFolder new_{""};
};

TEST_F(RemoveRun, TheFolderAndItsLinksGo) {
  ASSERT_TRUE(remove_run(new_));
  EXPECT_THAT(in_the_folder(), ElementsAre(old_.id(), "latest"));
  EXPECT_EQ(fs::read_symlink(runs_ + "/latest"), old_.id());
  EXPECT_FALSE(fs::is_symlink(list_ + "/" + new_.id()));
  EXPECT_TRUE(fs::is_symlink(list_ + "/" + old_.id())) << "the control";
  ASSERT_TRUE(remove_run(old_));
  EXPECT_THAT(in_the_folder(), IsEmpty());
}

TEST_F(RemoveRun, DeadLinksInTheListGoToo) {
  fs::create_symlink("/nowhere/demo-1", list_ + "/demo-1");
  ASSERT_TRUE(remove_run(old_));
  EXPECT_FALSE(fs::is_symlink(list_ + "/demo-1"));
  EXPECT_EQ(fs::read_symlink(runs_ + "/latest"), new_.id()) << "the newest stays the newest";
}

TEST_F(RemoveRun, NotWhileSomebodyHoldsIt) {
  const auto held = FileLock::acquire(new_.pulse_lock(), FileLock::Mode::exclusive, Duration::zero());
  ASSERT_TRUE(held);
  const auto status = remove_run(new_);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::locked);
  EXPECT_TRUE(fs::exists(new_.run_json()));
}

TEST_F(RemoveRun, NothingThatIsNoRun) {
  const RunFolder project(runs_);
  const auto status = remove_run(project);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::invalid);
  EXPECT_TRUE(fs::exists(new_.run_json()));
}

TEST_F(RemoveRun, AnInterruptedRemovalIsNoRunAndIsEnded) {
  fs::rename(old_.path(), runs_ + "/.prune-" + old_.id() + "-00000000");
  ASSERT_TRUE(fs::exists(runs_ + "/.prune-" + old_.id() + "-00000000/run.json")) << "the control";
  std::vector<std::string> ids;
  for (const RunFolder& run : runs_in(runs_)) ids.push_back(run.id());
  EXPECT_THAT(ids, ElementsAre(new_.id()));
  EXPECT_GE(clear_leftovers(runs_), 100'000U);
  EXPECT_THAT(in_the_folder(), ElementsAre(new_.id(), "latest"));
  EXPECT_EQ(clear_leftovers(runs_), 0U);
}

TEST_F(RemoveRun, ARemovalThatIsUnderWayIsLeftToItself) {
  const RunFolder aside(runs_ + "/.prune-" + old_.id() + "-00000000");
  fs::rename(old_.path(), aside.path());
  const auto held = FileLock::acquire(aside.pulse_lock(), FileLock::Mode::exclusive, Duration::zero());
  ASSERT_TRUE(held);
  EXPECT_EQ(clear_leftovers(runs_), 0U);
  EXPECT_TRUE(fs::exists(aside.run_json()));
}

TEST_F(RemoveRun, HardLinksCountOnce) {
  const uint64_t before = disk_usage(old_.path());
  fs::create_directory(old_.model());
  const uint64_t with_folder = disk_usage(old_.path());
  fs::create_hard_link(old_.checkpoints() + "/step-1/model.safetensors", old_.model() + "/model.safetensors");
  EXPECT_EQ(disk_usage(old_.path()), with_folder);
  EXPECT_GE(before, 100'000U);
  fs::copy_file(old_.checkpoints() + "/step-1/model.safetensors", old_.model() + "/copy.safetensors");
  EXPECT_GE(disk_usage(old_.path()), with_folder + 100'000U) << "the control";
}

}  // namespace
}  // namespace bitctl
