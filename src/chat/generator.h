// The thread that runs the model: token ids in, token ids out, one answer at a time. It holds no lock while
// it computes, and looks at the stop flag before every token and every piece of the prompt.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "chat/mailbox.h"
#include "decode/decoder.h"
#include "decode/sampler.h"

namespace bitctl {

struct GenerationJob {
  uint64_t id = 0;
  std::vector<int32_t> prompt;  // the whole conversation; never empty
  std::vector<int32_t> stop_ids;
  int64_t max_new_tokens = 0;
  SamplerOptions sampling;
};

struct GeneratedToken {
  uint64_t job = 0;
  int32_t id = 0;
};

enum class StopReason { end_of_turn, length, interrupted, error };

struct GenerationEnd {
  uint64_t job = 0;
  StopReason reason = StopReason::end_of_turn;
  std::string error = {};
  size_t prompt_tokens = 0;
  size_t reused_tokens = 0;  // of the prompt: they were in the decoder's cache already
  size_t new_tokens = 0;
  bool context_full = false;  // why it is StopReason::length
  Duration to_first_token{};
  Duration total{};
};

// "end_of_turn", "length", "interrupted", "error": as transcripts and --jsonl have it.
std::string_view name_of(StopReason reason);

// "[15 tokens, 34.2 tok/s, first after 120ms, 30 of 45 prompt tokens reused]".
std::string figures(const GenerationEnd& end);

using GenerationEvent = std::variant<GeneratedToken, GenerationEnd>;

// How many of `wanted` need not be run: the longest common prefix with what is cached, but never all of it,
// because the logits after the last one are needed.
size_t reusable_tokens(std::span<const int32_t> cached, std::span<const int32_t> wanted);

class Generator {
 public:
  Generator();
  ~Generator();  // stops what is running and waits for that token

  // Between answers only.
  void use(std::unique_ptr<Decoder> decoder);
  const Decoder* decoder() const { return decoder_.get(); }

  // One job at a time; its tokens and its end come through events().
  void start(GenerationJob job);
  void stop() { stop_ = true; }

  Mailbox<GenerationEvent>& events() { return events_; }

 private:
  void run();
  GenerationEnd generate(const GenerationJob& job);
  Status prefill(std::span<const int32_t> prompt, size_t from);
  Status forward(std::span<const int32_t> ids);

  std::unique_ptr<Decoder> decoder_;
  std::vector<int32_t> cached_;  // the ids whose positions the decoder holds
  std::vector<float> logits_;
  Mailbox<GenerationEvent> events_;
  std::atomic<bool> stop_ = false;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::optional<GenerationJob> job_;  // guarded by mutex_, as is quit_
  bool quit_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace bitctl
