#include "decode/engine_process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "decode/transformers_decoder.h"
#include "unit/temporary_folder.h"

namespace bitctl {
namespace {

using testing::HasSubstr;

// An engine that is a shell script; its socket is descriptor 3.
std::unique_ptr<EngineProcess> script(const std::string& text,
                                      const std::vector<EngineProcess::File>& files = {}) {
  auto engine = EngineProcess::start({{"/bin/sh", "-c", text, "sh"}, {"PATH=/usr/bin:/bin"}}, files);
  return engine ? std::move(*engine) : nullptr;
}

std::string error_of(EngineProcess& engine, std::span<char> data = {}) {
  const auto reply = engine.ask({{"op", "load"}}, data);
  return reply ? "none" : reply.error().message;
}

TEST(EngineProcess, RepliesCarryTheirBytes) {
  const auto engine = script(
      "read a <&3; printf '{\"bytes\":4}\\nab\\ncd' >&3; read b <&3; printf '{\"text\":\"%s\"}\\n' \"${#b}\" "
      ">&3;"
      "read c <&3");
  std::string data(4, ' ');
  ASSERT_TRUE(engine->ask({{"op", "forward"}}, data));
  EXPECT_EQ(data, "ab\nc");
  EXPECT_THAT(error_of(*engine), HasSubstr("what is no reply: d")) << "what stands behind them is a line";
}

TEST(EngineProcess, ALargeReplyComesWhole) {
  const auto engine = script(
      "read a <&3; printf '{\"bytes\":1000000}\\n' >&3; head -c 1000000 /dev/zero | tr '\\0' x >&3; read b "
      "<&3");
  std::string data(1000000, ' ');
  ASSERT_TRUE(engine->ask({{"op", "forward"}}, data));
  EXPECT_EQ(data, std::string(1000000, 'x'));
}

TEST(EngineProcess, AnErrorIsOfThatRequestAlone) {
  const auto engine = script(
      "read a <&3; echo '{\"error\":\"the context is full\"}' >&3; read b <&3; echo '{\"text\":\"on\"}' >&3; "
      "read c <&3");
  const auto refused = engine->ask({{"op", "forward"}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::invalid);
  EXPECT_EQ(refused.error().message, "the context is full");
  EXPECT_TRUE(engine->ask({{"op", "forward"}}));
}

TEST(EngineProcess, ItsDeathTellsItsLastWordsFromThenOn) {
  const auto engine = script("read a <&3; echo noise; echo 1; echo 2 >&2; echo 3 >&2; exit 3");
  const std::string died = "the transformers engine ended (exit code 3): 1 | 2 | 3";
  EXPECT_EQ(error_of(*engine), died);
  EXPECT_FALSE(engine->running());
  EXPECT_EQ(error_of(*engine), died);
  EXPECT_EQ(error_of(*script("kill -9 $$")), "the transformers engine ended (SIGKILL)");
  EXPECT_EQ(error_of(*script("read a <&3; echo '{\"fatal\":\"torch is missing\"}' >&3; exit 1")),
            "torch is missing");
}

TEST(EngineProcess, WhatIsNoReplyEndsIt) {
  std::string data(4, ' ');
  for (const std::string junk : {"junk", "[]", "{\"bytes\":5}", "{}"}) {
    const auto engine = script("read a <&3; echo '" + junk + "' >&3; read b <&3");
    EXPECT_THAT(error_of(*engine, data), testing::AnyOf(HasSubstr("no reply"), HasSubstr("not 4"))) << junk;
    EXPECT_FALSE(engine->running());
  }
}

TEST(EngineProcess, NoiseDoesNotBlockIt) {
  const auto engine =
      script("head -c 1000000 /dev/zero; read a <&3; echo '{\"text\":\"on\"}' >&3; read b <&3");
  EXPECT_TRUE(engine->ask({{"op", "load"}}));
}

TEST(EngineProcess, AWaitCanBeGivenUp) {
  const auto engine = script("read a <&3; read b <&3");
  int asked = 0;
  const auto reply = engine->ask({{"op", "load"}}, {}, [&] { return ++asked < 3; });
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().message, "stopped");
  EXPECT_FALSE(engine->running());
}

TEST(EngineProcess, HasItsFilesAndNothingElse) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/weights";
  Fd file(::open(path.c_str(), O_RDWR | O_CREAT, 0600));
  ASSERT_EQ(::write(file.get(), "hello\n", 6), 6);
  ::lseek(file.get(), 0, SEEK_SET);
  ::unlink(path.c_str());  // it stays what it is
  int open_here[2];
  ASSERT_EQ(::pipe(open_here), 0);  // not close-on-exec
  const auto engine = script(
      "read a <&3; read said <&4; printf '{\"text\":\"%s %s %s\"}\\n' \"$said\" \"$*\" \"$(ls /proc/$$/fd | "
      "tr '\\n' ' ')\" >&3; read b <&3",
      {{"weights", file.get()}});
  const auto reply = engine->ask({{"op", "load"}});
  ASSERT_TRUE(reply) << reply.error().message;
  EXPECT_EQ(reply->at("text"), "hello socket=3 weights=4 0 1 2 3 4 5 ") << "5 is what the shell hears ls by";
  ::close(open_here[0]);
  ::close(open_here[1]);
}

TEST(EngineProcess, ItsInputEndsWithUs) {
  // As after a kill of this process: nothing is said to the child, the kernel closes what was ours.
  const TemporaryFolder folder;
  const std::string mark = folder.path() + "/mark";
  ASSERT_EQ(::mkfifo(mark.c_str(), 0600), 0);
  const Fd ended(::open(mark.c_str(), O_RDONLY | O_NONBLOCK));
  const pid_t parent = ::fork();
  if (parent == 0) {
    const auto engine = script("cat; exec 3>&-; echo gone > " + mark);
    ::raise(SIGKILL);
  }
  int status = 0;
  ::waitpid(parent, &status, 0);
  pollfd wait{ended.get(), POLLIN, 0};
  ASSERT_EQ(::poll(&wait, 1, 60'000), 1);
  char text[5] = {};
  EXPECT_EQ(::read(ended.get(), text, 4), 4);
  EXPECT_STREQ(text, "gone");
}

TEST(TransformersDecoder, IsWhatTheEngineSays) {
  const std::string loads =
      "read a <&3; echo '{\"vocab_size\":2,\"max_context\":8,\"device\":\"cpu\",\"dtype\":\"bfloat16\"}' "
      ">&3;";
  auto decoder = open_transformers_decoder(
      script(loads +
             "read b <&3; printf '{\"bytes\":8}\\n\\0\\0\\200\\077\\0\\0\\0\\300' >&3; read c <&3; exit 7"),
      {.remark = "why"});
  ASSERT_TRUE(decoder) << decoder.error().message;
  const DecoderInfo& info = (*decoder)->info();
  EXPECT_EQ(info.implementation + info.device + info.dtype + info.remark, "transformerscpubfloat16why");
  EXPECT_EQ(info.max_context, 8);
  const std::vector<int32_t> ids{1, 0};
  std::vector<float> logits(2);
  ASSERT_TRUE((*decoder)->forward(ids, 0, logits));
  EXPECT_THAT(logits, testing::ElementsAre(1.0F, -2.0F));
  std::vector<float> room(3);
  EXPECT_FALSE((*decoder)->forward(ids, 2, room));
  EXPECT_FALSE((*decoder)->is_lost());
  EXPECT_FALSE((*decoder)->forward(ids, 2, logits));
  EXPECT_TRUE((*decoder)->is_lost());
}

TEST(TransformersDecoder, AReplyThatDescribesNoModelIsRefused) {
  EXPECT_FALSE(open_transformers_decoder(script("read a <&3; echo '{\"vocab_size\":2}' >&3; read b <&3")));
}

}  // namespace
}  // namespace bitctl
