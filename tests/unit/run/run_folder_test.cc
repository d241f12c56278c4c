#include "run/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "run/run_labels.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

// A project folder and the user's state folder, as a training leaves them.
class FindRun : public testing::Test {
 protected:
  FindRun() {
    ::setenv("XDG_STATE_HOME", (root_ / "state").c_str(), 1);
    fs::create_directories(user_runs_);
    fs::create_directories(project_ + "/runs");
  }
  ~FindRun() override { ::unsetenv("XDG_STATE_HOME"); }

  // A run in <root>/<where>/runs, linked from the user's state folder.
  void make(const std::string& where, const std::string& id) {
    const std::string path = root_.write(where + "/runs/" + id + "/run.json", "{}");
    fs::create_directory_symlink(fs::path(path).parent_path(), user_runs_ + "/" + id);
  }

  std::string found(const std::string& name) {
    const auto run = find_run(name, project_);
    return run ? run->id() : "- " + run.error().message;
  }

  std::vector<std::string> listed(bool all) {
    std::vector<std::string> ids;
    for (const RunFolder& run : list_runs(project_, all)) ids.push_back(run.id());
    return ids;
  }

  TemporaryFolder root_;
  std::string project_ = root_ / "project";
  std::string user_runs_ = root_ / "state/bitctl/runs";
};

TEST(RunFolder, NamesWhatLiesInIt) {
  const RunFolder run("/p/runs/demo-20261121-145703");
  EXPECT_EQ(run.id(), "demo-20261121-145703");
  EXPECT_EQ(run.pulse_lock(), "/p/runs/demo-20261121-145703/training_status.json.lock");
  EXPECT_EQ(run.log_of_attempt(2), "/p/runs/demo-20261121-145703/logs/attempt-2.log");
}

TEST_F(FindRun, ByIdPrefixAndFolder) {
  make("project", "demo-20261121-145703");
  make("project", "other-20261121-145703");
  make("elsewhere", "far-20260101-000000");
  EXPECT_EQ(found("demo-20261121-145703"), "demo-20261121-145703");
  EXPECT_EQ(found("de"), "demo-20261121-145703");
  EXPECT_EQ(found("runs/demo-20261121-145703/"), "demo-20261121-145703");
  EXPECT_EQ(found(root_ / "elsewhere/runs/far-20260101-000000"), "far-20260101-000000");
  EXPECT_EQ(found("fa"), "far-20260101-000000");
  EXPECT_EQ(find_run("fa", project_)->path(), fs::canonical(root_ / "elsewhere/runs/far-20260101-000000"));
}

TEST_F(FindRun, AWholeIdIsNoPrefixOfALongerOne) {
  make("project", "demo-20261121-145703");
  make("project", "demo-20261121-145703-more");
  EXPECT_EQ(found("demo-20261121-145703"), "demo-20261121-145703");
}

TEST_F(FindRun, APrefixOfSeveralNamesThemAll) {
  make("project", "demo-20261121-145703");
  make("elsewhere", "demo-20261122-000000");
  const auto run = find_run("demo", project_);
  ASSERT_FALSE(run);
  EXPECT_EQ(run.error().kind, ErrorKind::invalid);
  EXPECT_EQ(run.error().message, "\"demo\" may be each of demo-20261122-000000, demo-20261121-145703");
}

TEST_F(FindRun, AMissingOneSaysWhereItLooked) {
  const auto run = find_run("nosuch", project_);
  ASSERT_FALSE(run);
  EXPECT_EQ(run.error().kind, ErrorKind::not_found);
  EXPECT_EQ(run.error().message, "no run \"nosuch\": looked in " + project_ + "/runs and " + user_runs_);
}

TEST_F(FindRun, AFolderOfThatNameThatIsNoRunHidesNoRun) {
  make("project", "train-20261121-145703");
  fs::create_directories(project_ + "/train");
  fs::create_directories(project_ + "/empty");
  EXPECT_EQ(found("train"), "train-20261121-145703");
  EXPECT_EQ(found("empty"), "- no run in empty: neither run.json nor training_status.json is there");
  root_.write("project/empty/training_status.json", "");
  EXPECT_EQ(found("empty"), "empty");
}

TEST_F(FindRun, WithoutANameLatestHereIsMeant) {
  make("project", "a-20261121-000000");
  make("project", "b-20261122-000000");
  make("elsewhere", "c-20261123-000000");
  EXPECT_EQ(found(""), "b-20261122-000000");
  fs::create_directory_symlink("a-20261121-000000", project_ + "/runs/latest");
  EXPECT_EQ(found(""), "a-20261121-000000");
  fs::remove(project_ + "/runs/latest");
  fs::create_directory_symlink("gone", project_ + "/runs/latest");
  EXPECT_EQ(found(""), "b-20261122-000000");
}

TEST_F(FindRun, WithoutANameAndWithoutRunsHereTheUsersNewestIsMeant) {
  make("elsewhere", "old-20261121-000000");
  make("elsewhere", "new-20261123-000000");
  EXPECT_EQ(found(""), "new-20261123-000000");
  fs::remove_all(root_ / "elsewhere");
  EXPECT_THAT(found(""), HasSubstr("- no run yet: looked in "));
}

TEST_F(FindRun, AStateFolderThatIsRelativeDoesNotCount) {
  if (::getenv("HOME") == nullptr) GTEST_SKIP() << "no HOME here to take away";
  ::setenv("XDG_STATE_HOME", "relative paths do not count", 1);
  const std::string home = ::getenv("HOME");
  ::setenv("HOME", "/nonexistent", 1);
  EXPECT_THAT(found(""), HasSubstr("/nonexistent/.local/state/bitctl/runs"));
  ::setenv("HOME", home.c_str(), 1);
}

TEST_F(FindRun, ListsTheNewestFirstAndEachOnce) {
  make("project", "b-20261121-000000");
  make("project", "a-20261122-000000");
  make("elsewhere", "c-20261123-000000");
  root_.write("project/runs/by-hand/training_status.json", "");
  fs::create_directories(project_ + "/runs/no-run");
  fs::create_directory_symlink("a-20261122-000000", project_ + "/runs/latest");
  fs::create_directory_symlink(root_ / "deleted", user_runs_ + "/d-20261124-000000");
  EXPECT_THAT(listed(false), ElementsAre("a-20261122-000000", "b-20261121-000000", "by-hand"));
  EXPECT_THAT(listed(true),
              ElementsAre("c-20261123-000000", "a-20261122-000000", "b-20261121-000000", "by-hand"));
}

TEST(RunLabels, ComeFromRunJsonAndAreUnknownOtherwise) {
  const TemporaryFolder folder;
  const auto labels = [&](const std::string& text) {
    const RunLabels read = read_labels(folder.write("run.json", text));
    return read.profile + " " + read.dataset;
  };
  EXPECT_EQ(labels(R"({"argv":[],"labels":{"profile":"lora","dataset":"chitchat"}})"), "lora chitchat");
  EXPECT_EQ(labels(R"({"labels":{"dataset":"chitchat"}})"), "Unknown chitchat");
  EXPECT_EQ(labels(R"({"labels":{"profile":"","dataset":7}})"), "Unknown Unknown");
  for (const char* broken : {"", "[]", "{}", R"({"labels":[]})", R"({"labels":{"profile":"x")"})
    EXPECT_EQ(labels(broken), "Unknown Unknown") << broken;
  EXPECT_EQ(read_labels(folder / "none.json").profile, "Unknown");
}

}  // namespace
}  // namespace bitctl
