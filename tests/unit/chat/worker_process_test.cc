#include "chat/worker_process.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <unistd.h>

namespace bitctl {
namespace {

using testing::HasSubstr;

// A worker that is a shell script; its socket is descriptor 3.
WorkerCommand script(const std::string& text) { return {{"/bin/sh", "-c", text}, {"PATH=/usr/bin:/bin"}}; }

class WorkerProcessTest : public testing::Test {
 protected:
  void run_until(const std::function<bool()>& done) {
    while (!done()) loop.run_once();
  }
  std::string death_of(const WorkerCommand& command) {
    EXPECT_TRUE(worker.start(command));
    run_until([&] { return !death.empty(); });
    return std::exchange(death, "");
  }

  EventLoop loop;
  std::string death;
  WorkerProcess worker{loop, "the text worker", [this](const std::string& reason) { death = reason; }};
};

TEST_F(WorkerProcessTest, RepliesFindTheirRequests) {
  ASSERT_TRUE(
      worker.start(script("read a <&3; read b <&3; echo '{\"id\":2,\"text\":\"two\"}' >&3;"
                          "echo '{\"id\":1,\"error\":\"no such folder\"}' >&3; read c <&3")));
  std::vector<std::string> heard;
  const auto hear = [&](Result<Json> reply) {
    heard.push_back(reply ? reply->at("text").get<std::string>() : reply.error().message);
  };
  worker.ask({{"op", "load"}}, hear);
  worker.ask({{"op", "decode"}}, hear);
  run_until([&] { return heard.size() == 2; });
  EXPECT_THAT(heard, testing::ElementsAre("two", "no such folder"));
  EXPECT_TRUE(worker.running());
}

TEST_F(WorkerProcessTest, ARequestLargerThanAnySocketGoesThrough) {
  ASSERT_TRUE(
      worker.start(script("read -r line <&3; echo '{\"id\":1,\"text\":\"got it\"}' >&3; read c <&3")));
  std::string heard;
  worker.ask({{"op", "encode"}, {"text", std::string(1 << 20, 'x')}},
             [&](Result<Json> reply) { heard = reply->at("text"); });
  run_until([&] { return !heard.empty(); });
  EXPECT_EQ(heard, "got it");
}

TEST_F(WorkerProcessTest, AReplyMayComeInParts) {
  ASSERT_TRUE(
      worker.start(script("read a <&3; for n in 1 2; do echo "
                          "\"{\\\"id\\\":1,\\\"more\\\":true,\\\"text\\\":\\\"$n\\\"}\" >&3; done;"
                          "echo '{\"id\":1,\"more\":false,\"text\":\"3\"}' >&3; echo "
                          "'{\"id\":1,\"text\":\"late\"}' >&3; exit 1")));
  std::string heard;
  worker.ask({{"op", "download"}},
             [&](Result<Json> reply) { heard += reply->at("text").get<std::string>(); });
  run_until([&] { return !death.empty(); });
  EXPECT_EQ(heard, "123");
}

TEST_F(WorkerProcessTest, ItsDeathTellsItsLastWords) {
  EXPECT_EQ(death_of(script("echo noise; echo 1 >&2; echo 2 >&2; echo 3 >&2; exit 3")),
            "the text worker ended (exit code 3): 1 | 2 | 3");
  EXPECT_EQ(death_of(script("exit 0")), "the text worker ended (exit code 0)");
  EXPECT_EQ(death_of(script("kill -9 $$")), "the text worker ended (SIGKILL)");
  EXPECT_EQ(death_of(script("echo '{\"fatal\":\"jinja2 is missing\"}' >&3; exit 1")), "jinja2 is missing");
  EXPECT_FALSE(worker.running());
}

TEST_F(WorkerProcessTest, WhatItSaidBeforeItsDeathIsHeard) {
  ASSERT_TRUE(worker.start(script("read a <&3; echo '{\"id\":1,\"text\":\"last\"}' >&3; exit 1")));
  std::string heard;
  worker.ask({{"op", "encode"}}, [&](Result<Json> reply) { heard = reply->at("text"); });
  run_until([&] { return !death.empty(); });
  EXPECT_EQ(heard, "last");
}

TEST_F(WorkerProcessTest, ALineThatIsNoReplyEndsIt) {
  for (const std::string junk : {"junk", "[]", "", "{\\\"id\\\":1,\\\"temperature\\\":NaN}",
                                 "{\\\"id\\\":1,\\\"error\\\":\\\"\\\\ud800\\\"}"}) {
    ASSERT_TRUE(worker.start(script("read a <&3; printf '%s\\n' \"" + junk + "\" >&3; read c <&3")));
    worker.ask({{"op", "load"}}, [](const Result<Json>&) { FAIL() << "nobody knows whose reply it is"; });
    run_until([&] { return !death.empty(); });
    EXPECT_THAT(std::exchange(death, ""), testing::StartsWith("the text worker said what is no reply: "));
    EXPECT_FALSE(worker.running());
  }
}

TEST_F(WorkerProcessTest, AReplyThatNobodyWaitsForIsNone) {
  ASSERT_TRUE(
      worker.start(script("read a <&3; printf '{\"id\":\"1\"}\\n{\"id\":7}\\n' >&3;"
                          "echo '{\"id\":1,\"text\":\"good\"}' >&3; read c <&3")));
  std::string heard;
  worker.ask({{"op", "encode"}}, [&](Result<Json> reply) { heard = reply->at("text"); });
  run_until([&] { return !heard.empty(); });
  EXPECT_EQ(heard, "good");
}

TEST_F(WorkerProcessTest, CanBeStartedAgain) {
  death_of(script("exit 1"));
  ASSERT_TRUE(worker.start(script("read a <&3; echo '{\"id\":1,\"text\":\"again\"}' >&3; read c <&3")));
  std::string heard;
  worker.ask({{"op", "encode"}}, [&](Result<Json> reply) { heard = reply->at("text"); });
  run_until([&] { return !heard.empty() || !death.empty(); });
  EXPECT_EQ(heard, "again");
}

TEST_F(WorkerProcessTest, HasNothingOfOurs) {
  int open_here[2];
  ASSERT_EQ(::pipe(open_here), 0);  // not close-on-exec
  EXPECT_THAT(death_of(script("ls /proc/self/fd | tr '\\n' ' ' >&2; exit 1")), HasSubstr("0 1 2 3 4 "))
      << "4 is ls's own";
  EXPECT_THAT(death_of(script("ls /proc/self/fd | wc -l >&2; exit 1")), HasSubstr(": 5"));
  ::close(open_here[0]);
  ::close(open_here[1]);
}

TEST_F(WorkerProcessTest, AMissingProgramIsSaid) {
  const Status started = worker.start({{"/no/such/python"}, {}});
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message, HasSubstr("/no/such/python"));
}

}  // namespace
}  // namespace bitctl
