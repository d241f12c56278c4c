#include "chat/generator.h"

#include <gmock/gmock.h>
#include <poll.h>

#include "unit/chat/fake_decoder.h"

namespace bitctl {
namespace {

using Ids = std::vector<int32_t>;
using Call = FakeDecoder::Call;

TEST(ReusableTokens, AreTheCommonPrefixButNeverAll) {
  EXPECT_EQ(reusable_tokens(Ids{}, Ids{1, 2}), 0u);
  EXPECT_EQ(reusable_tokens(Ids{1, 2}, Ids{1, 2, 3}), 2u);
  EXPECT_EQ(reusable_tokens(Ids{1, 9, 3}, Ids{1, 2, 3}), 1u);
  EXPECT_EQ(reusable_tokens(Ids{1, 2, 3}, Ids{1, 2, 3}), 2u);
  EXPECT_EQ(reusable_tokens(Ids{1, 2, 3, 4}, Ids{1, 2}), 1u);
  EXPECT_EQ(reusable_tokens(Ids{1}, Ids{}), 0u);
}

class GeneratorTest : public testing::Test {
 protected:
  struct Answer {
    std::string text;
    GenerationEnd end;
  };

  void use(FakeDecoderSettings settings = {}) {
    auto made = std::make_unique<FakeDecoder>(std::move(settings));
    decoder = made.get();
    generator.use(std::move(made));
  }

  GenerationJob job(const std::vector<std::pair<std::string, std::string>>& messages) {
    return {.id = ++jobs,
            .prompt = FakeDecoder::chat_ids(messages),
            .stop_ids = {FakeDecoder::kEnd},
            .max_new_tokens = 1000};
  }

  // Plays the events until the end, calling `each` for every token.
  Answer wait(const std::function<void()>& each = [] {}) {
    Ids ids;
    while (true) {
      pollfd mail{generator.events().fd(), POLLIN, 0};
      ::poll(&mail, 1, -1);
      for (const auto& event : generator.events().take()) {
        if (const auto* token = std::get_if<GeneratedToken>(&event)) {
          EXPECT_EQ(token->job, jobs);
          ids.push_back(token->id);
          each();
        } else {
          return {FakeDecoder::as_text(ids), std::get<GenerationEnd>(event)};
        }
      }
    }
  }

  Answer ask(const std::vector<std::pair<std::string, std::string>>& messages) {
    generator.start(job(messages));
    return wait();
  }

  Generator generator;
  FakeDecoder* decoder = nullptr;
  uint64_t jobs = 0;
};

TEST_F(GeneratorTest, AnswersUntilTheStopToken) {
  use();
  const Answer answer = ask({{"user", "hello"}});
  EXPECT_EQ(answer.text, "You said: hello");
  EXPECT_EQ(answer.end.reason, StopReason::end_of_turn);
  EXPECT_EQ(answer.end.new_tokens, 15u);
  EXPECT_EQ(answer.end.reused_tokens, 0u);
}

// A conversation of three turns: what the decoder is given is the new part of each, never again what it
// holds.
TEST_F(GeneratorTest, ATurnRunsItsNewTokensOnly) {
  use();
  std::vector<std::pair<std::string, std::string>> messages;
  std::vector<size_t> reused;
  std::vector<Call> prefills;
  size_t held = 0;
  for (const std::string said : {"one", "two", "three"}) {
    messages.emplace_back("user", said);
    const size_t calls_before = decoder->calls().size();
    const Answer answer = ask(messages);
    EXPECT_EQ(answer.text, "You said: " + said);
    prefills.push_back(decoder->calls()[calls_before]);
    EXPECT_EQ(answer.end.reused_tokens, held);
    EXPECT_EQ(prefills.back(), (Call{held, answer.end.prompt_tokens - held}));
    held = answer.end.prompt_tokens + answer.end.new_tokens;  // the stop token itself was never run
    messages.emplace_back("assistant", answer.text);
  }
}

// The control: a decoder whose context were reused wrongly would be heard, because its answer depends on all
// of it.
TEST_F(GeneratorTest, AnotherConversationIsNotMistakenForThisOne) {
  use();
  ask({{"user", "one"}});
  EXPECT_EQ(ask({{"user", "two"}}).text, "You said: two");
  EXPECT_EQ(ask({{"system", "brief"}, {"user", "one"}}).text, "You said: one");
  EXPECT_EQ(ask({{"user", "one"}}).end.reused_tokens, 1u)
      << "the begin of a message; then user differs from system";
}

TEST_F(GeneratorTest, StopsAtTheLengthAskedFor) {
  use({.endless = true});
  GenerationJob asked = job({{"user", "x"}});
  asked.max_new_tokens = 7;
  generator.start(asked);
  const Answer answer = wait();
  EXPECT_EQ(answer.text, "You sai");
  EXPECT_EQ(answer.end.reason, StopReason::length);
}

TEST_F(GeneratorTest, StopsBetweenTokensWhenToldAndKeepsWhatItHolds) {
  use({.endless = true});
  GenerationJob asked = job({{"user", "x"}});
  asked.max_new_tokens = 1'000'000;
  generator.start(asked);
  const Answer answer = wait([&] { generator.stop(); });
  EXPECT_EQ(answer.end.reason, StopReason::interrupted);
  EXPECT_THAT(answer.text, testing::StartsWith("Y"));
  generator.start(job({{"user", "x"}, {"assistant", answer.text}, {"user", "y"}}));
  const Answer next = wait([&] { generator.stop(); });
  EXPECT_EQ(next.end.reused_tokens, asked.prompt.size() + answer.text.size());
}

TEST_F(GeneratorTest, ALongPromptIsRunInPieces) {
  use();
  const Answer answer = ask({{"user", std::string(700, 'p')}});
  EXPECT_EQ(answer.end.reason, StopReason::end_of_turn);
  size_t position = 0;
  for (const Call& call : decoder->calls()) {
    EXPECT_EQ(call.position, position);
    EXPECT_LE(call.count, 128u);
    position += call.count;
  }
}

TEST_F(GeneratorTest, AFailureIsAnAnswerAndForgetsTheCache) {
  use({.fails_at = "boom"});
  EXPECT_EQ(ask({{"user", "fine"}}).text, "You said: fine");
  const Answer failed = ask({{"user", "boom"}});
  EXPECT_EQ(failed.end.reason, StopReason::error);
  EXPECT_EQ(failed.end.error, "the fake decoder was told to fail");
  const Answer after = ask({{"user", "fine"}});
  EXPECT_EQ(after.text, "You said: fine");
  EXPECT_EQ(after.end.reused_tokens, 0u);
}

TEST_F(GeneratorTest, TheSameSeedGivesTheSameAnswerWithAndWithoutReuse) {
  class Even : public FakeDecoder {  // every token equally likely
    Status forward(std::span<const int32_t> ids, size_t position, std::span<float> logits) override {
      const Status status = FakeDecoder::forward(ids, position, logits);
      std::fill(logits.begin(), logits.end(), 1.0F);
      return status;
    }
  };
  const auto sample = [&] {
    GenerationJob asked = job({{"user", "x"}});
    asked.sampling.temperature = 1;
    asked.max_new_tokens = 20;
    asked.sampling.seed = 42;
    generator.start(asked);
    return wait();
  };
  generator.use(std::make_unique<Even>());
  const Answer first = sample();
  const Answer again = sample();
  EXPECT_GT(again.end.reused_tokens, 0u);
  EXPECT_EQ(again.text, first.text);
  EXPECT_GT(first.end.new_tokens, 0u);
}

TEST_F(GeneratorTest, IsEndedInTheMiddleOfAnAnswer) {
  use({.endless = true});
  GenerationJob asked = job({{"user", "x"}});
  asked.max_new_tokens = 1'000'000;
  generator.start(asked);  // and the destructor stops it
}

}  // namespace
}  // namespace bitctl
