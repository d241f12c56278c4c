// A chat without a terminal: one prompt in, one answer out.
#pragma once

#include <string>
#include <string_view>

#include "chat/pipe_chat.h"

namespace bitctl {

// The prompt is options.prompt and what stdin holds, where that is not a terminal; else all of stdin.
class OneShot : public PipeChat {
 public:
  OneShot(const ChatOptions& options, ModelOpener opener);

 private:
  void state_changed(const Bootstrap& state) override;
  void prompt_queued(const Bootstrap& state) override;
  void prompt_refused(std::string_view reason, const std::string& text) override;
  void prompt_forwarded(std::string_view reason, const std::string& model, const std::string& url) override;
  void answer_text(std::string_view text) override;
  void answer_ends(const GenerationEnd& end) override;
  void warning(const std::string& text) override;

  bool wants_input() const override;
  void input(std::string_view bytes) override { input_ += bytes; }
  void input_ended() override;

  std::string input_;
  bool submitted_ = false;
  bool waiting_ = false;  // the prompt waits, and whoever waits wants to know for what
};

}  // namespace bitctl
