// What `bitctl chat` was asked for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "chat/context.h"
#include "chat/loader.h"
#include "chat/sampling.h"

namespace bitctl {

// An OpenAI-compatible endpoint that answers while the model is not ready.
struct RemoteOptions {
  std::string url;    // "https://host/v1"; empty: there is none, and nothing is sent anywhere
  std::string model;  // empty: the first that it names
  std::string key_env = "OPENAI_API_KEY";
};

enum class ChatInput { prompt, lines, jsonl };  // what stands on stdin, where that is not a terminal's keys

struct ChatOptions {
  ModelChoice model;
  std::optional<std::string> prompt;  // -p: one answer, then the end
  ChatInput input = ChatInput::prompt;
  std::string system;
  std::string chat_template;  // "chatml", "none"; empty: the model's own
  SamplingChoices sampling;
  std::optional<uint64_t> seed;  // not given: another one each time
  WhenFull when_full = WhenFull::drop;
  bool enter_sends = false;  // and Ctrl+Enter, Alt+Enter and Ctrl+J break the line
  bool keep_transcript = false;
  bool go_on = false;    // with the conversation that was begun last
  bool no_wait = false;  // a prompt that would have to wait fails instead
  bool offline = false;
  RemoteOptions remote;
  bool verbose = false;
  std::optional<int> nice;  // towards other sessions; not given: half their share
  OpenOptions open;
};

}  // namespace bitctl
