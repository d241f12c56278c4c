// A chat without a terminal: one prompt in, one answer out. The answer goes to stdout, everything else to
// stderr.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "chat/options.h"
#include "chat/session.h"

namespace bitctl {

class OneShot : private SessionView {
 public:
  OneShot(const ChatOptions& options, ModelOpener opener);

  // The prompt is options.prompt and what stdin holds, where that is not a terminal; else all of stdin.
  // Returns the exit code: kOk, kFailed, kUsage without a prompt, kOwnFailure where stdout takes no more,
  // kInterrupted, 128 + N after signal N.
  int run();
  bool busy() const { return session_.busy(); }
  void end_worker() { session_.end_worker(); }

 private:
  void state_changed(const Bootstrap& state) override;
  void prompt_queued(const Bootstrap& state) override;
  void prompt_refused(std::string_view reason, const std::string& text) override;
  void answer_begins(const std::string&, bool) override {}
  void answer_text(std::string_view text) override;
  void answer_ends(const GenerationEnd& end) override;
  void warning(const std::string& text) override;
  void shown(const std::string& text) override;

  void read_input();
  bool take_input();  // false: it is at its end
  void submit();
  void write(std::string_view text);
  void end(int code);  // the first one counts

  const ChatOptions options_;
  EventLoop loop_;
  Fd signals_;
  ChatSession session_;
  std::string input_;
  bool submitted_ = false;
  bool waiting_ = false;  // the prompt waits, and whoever waits wants to know for what
  bool line_is_open_ = false;
  std::optional<int> exit_code_;  // once it is known, there is no more to do
};

}  // namespace bitctl
