// A conversation without a terminal, prompt by prompt: --lines (a line is a prompt, answers are text) and
// --jsonl (messages in, events out).
#pragma once

#include <deque>
#include <string>
#include <string_view>

#include "chat/pipe_chat.h"

namespace bitctl {

// A line of --jsonl: {"role": "user", "content": "…"}, or "system" for the prompts that come behind it.
// Error::invalid says what is wrong with it.
Result<ChatMessage> message_of_line(std::string_view line);

class LineChat : public PipeChat {
 public:
  LineChat(const ChatOptions& options, ModelOpener opener);

 private:
  void progressed() override;
  void state_changed(const Bootstrap& state) override;
  void prompt_queued(const Bootstrap& state) override;
  void prompt_refused(std::string_view reason, const std::string& text) override;
  void prompt_forwarded(std::string_view reason, const std::string& model, const std::string& url) override;
  void answer_text(std::string_view text) override;
  void answer_ends(const GenerationEnd& end) override;
  void warning(const std::string& text) override;

  void input(std::string_view bytes) override;
  void input_ended() override;
  bool has_enough() const override;

  void take_line(std::string_view line);
  void next();  // gives the next prompt to the session, or ends
  void event(std::string_view name, Json fields);

  const bool json_;
  std::string partial_;  // of a line
  size_t lines_ = 0;
  std::deque<ChatMessage> waiting_;
  bool at_end_ = false;
  bool asked_ = false;  // a prompt is with the session
  bool failed_ = false;
  std::string answer_;
  bool forwarded_ = false;  // it is the remote's
};

}  // namespace bitctl
