#include "watch/surroundings.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bitctl {
namespace {

struct Row {
  Surroundings around;
  bool woken, extended;
  StallStep expected;
};

TEST(NextStep, Table) {
  const Row rows[] = {
      {{}, false, false, StallStep::act},
      {{.stopped = {7}}, false, false, StallStep::wake},
      {{.stopped = {7}}, true, false, StallStep::act},
      {{.cpu_pressure = 90}, false, false, StallStep::extend},
      {{.cpu_pressure = 90}, false, true, StallStep::act},
      {{.cpu_pressure = 20}, false, false, StallStep::act},
      {{.frozen = true}, true, true, StallStep::excuse},
      {{.stopped = {7}, .frozen = true}, false, false, StallStep::excuse},
      {{.stopped = {7}, .cpu_pressure = 90}, true, false, StallStep::extend},
      {{.io_bytes = 1000 + (1 << 20)}, false, false, StallStep::extend},
      {{.io_bytes = 1000 + (1 << 20)}, false, true, StallStep::act},
      {{.io_bytes = 2000}, false, false, StallStep::act},
  };
  for (const Row& row : rows) EXPECT_EQ(next_step(row.around, 1000, row.woken, row.extended), row.expected);
}

TEST(LookAround, SeesAStoppedProcess) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::raise(SIGSTOP);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, WUNTRACED);
  EXPECT_THAT(look_around({child, ::getpid()}).stopped, ::testing::ElementsAre(child));
  EXPECT_THAT(describe_threads(child), ::testing::HasSubstr(std::to_string(child) + " T"));
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(look_around({child}).stopped.empty());
}

}  // namespace
}  // namespace bitctl
