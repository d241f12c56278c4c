#include "supervise/trainer_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bitctl {
namespace {

// One whose processes die only after so many kills, or never.
class StubbornTree : public Tree {
 public:
  StubbornTree(int kills_needed, int& kills) : kills_needed_(kills_needed), kills_(kills) {}
  void kill() override { ++kills_; }
  bool is_empty() override { return kills_ >= kills_needed_; }
  std::vector<pid_t> pids() override { return {4711, 4712}; }

 private:
  int kills_needed_;
  int& kills_;
};

class TrainerProcessTest : public testing::Test {
 protected:
  // Until the tree is gone, or it is told that it cannot be.
  void kill_a_tree(int kills_needed, Duration unkillable_after) {
    TrainerProcess trainer(loop_,
                           {.on_exit = [](const ExitStatus&) {},
                            .on_gone = [&] { gone_ = true; },
                            .on_unkillable = [&](const std::vector<pid_t>& left) { left_ = left; }},
                           unkillable_after);
    SpawnPlan plan;
    plan.argv = {"true"};
    plan.env = current_environment();
    plan.cwd = std::string("/");
    auto leader = spawn(plan);
    ASSERT_TRUE(leader) << leader.error().message;
    trainer.adopt(std::move(*leader), std::make_unique<StubbornTree>(kills_needed, kills_));
    while (trainer.is_running()) loop_.run_once();
    trainer.kill();
    while (!gone_ && left_.empty()) loop_.run_once();
  }

  EventLoop loop_;
  int kills_ = 0;
  bool gone_ = false;
  std::vector<pid_t> left_;
};

TEST_F(TrainerProcessTest, IsKilledUntilItsTreeIsEmpty) {
  kill_a_tree(3, std::chrono::hours(1));
  EXPECT_TRUE(gone_);
  EXPECT_GE(kills_, 3);
}

TEST_F(TrainerProcessTest, ATreeThatDoesNotDieIsNamedAfterTheDeadline) {
  kill_a_tree(1'000'000, std::chrono::milliseconds(30));
  EXPECT_FALSE(gone_);
  EXPECT_THAT(left_, testing::ElementsAre(4711, 4712));
}

}  // namespace
}  // namespace bitctl
