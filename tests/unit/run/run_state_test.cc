#include "run/run_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/lock.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

using testing::HasSubstr;

class RunState : public testing::Test {
 protected:
  RunState() {
    root_.write("demo-1/run.json", "{}");
    root_.write("demo-1/training_status.json.lock", "");
    history_.state = "running";
    history_.step = 42;
  }

  std::string state() { return state_of_run(folder_, history_); }

  TemporaryFolder root_;
  RunFolder folder_{root_ / "demo-1"};
  History history_;  // of a supervisor that is gone
};

TEST_F(RunState, ALivingSupervisorIsBelieved) {
  history_.supervisor = own_process_id();
  EXPECT_EQ(state(), "running");
  EXPECT_TRUE(is_in_progress(folder_, history_));
  history_.supervisor.start_ticks += 1;
  EXPECT_EQ(state(), "dead") << "another process with its pid";
  EXPECT_FALSE(is_in_progress(folder_, history_));
}

TEST_F(RunState, AWriterThatStillSavesHoldsTheLock) {
  const auto held = FileLock::acquire(folder_.pulse_lock(), FileLock::Mode::exclusive, Duration::zero());
  ASSERT_TRUE(held);
  for (const char* told : {"running", "failed"}) {
    history_.state = told;
    EXPECT_EQ(state(), "saving");
    EXPECT_TRUE(is_in_progress(folder_, history_));
  }
}

TEST_F(RunState, ALastWordIsBelieved) {
  for (const char* told : {"done", "stopped", "failed"}) {
    history_.state = told;
    EXPECT_EQ(state(), told);
  }
}

TEST_F(RunState, TheEndSaysWhatToDo) {
  EXPECT_THAT(describe_the_end(folder_, history_), HasSubstr("killed at step 42"));
  EXPECT_THAT(describe_the_end(folder_, history_), HasSubstr("`bitctl resume demo-1`"));
  history_.pulse.message = "exit code 1";
  history_.state = "failed";
  EXPECT_THAT(describe_the_end(folder_, history_), HasSubstr("exit code 1; `bitctl why demo-1`"));
  history_.state = "done";
  EXPECT_THAT(describe_the_end(folder_, history_), HasSubstr("bitctl chat demo-1"));
}

}  // namespace
}  // namespace bitctl
