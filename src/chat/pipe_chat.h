// What chats without a terminal have in common: stdin is read to its end beside everything else, answers go
// to stdout, the rest to stderr, and there is an exit code.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "chat/options.h"
#include "chat/session.h"

namespace bitctl {

class PipeChat : protected SessionView {
 public:
  // Returns the exit code: kOk, kFailed, kUsage for an input that is none, kOwnFailure where stdout takes no
  // more, kInterrupted, 128 + N after signal N.
  int run();
  bool busy() const { return session_.busy(); }
  void end_workers() { session_.end_workers(); }

 protected:
  PipeChat(const ChatOptions& options, ModelOpener opener);
  ~PipeChat() override = default;

  void answer_begins(const std::string&, bool) override {}
  void shown(const std::string&) override {}

  void progressed() override;  // each file as it begins; then the figures, now and then

  virtual bool wants_input() const { return true; }
  // Input is read no further while this says so; the one that has had enough calls read_input() again.
  virtual bool has_enough() const { return false; }
  virtual void input(std::string_view bytes) = 0;
  virtual void input_ended() = 0;

  void write(std::string_view text);  // to stdout; where it takes no more, this is the end
  void end(int code);                 // the first one counts; an open line of stdout is ended
  bool ended() const { return exit_code_.has_value(); }
  void read_input();

  const ChatOptions options_;
  EventLoop loop_;
  Fd signals_;  // blocked before the session starts its threads
  ChatSession session_;

 private:
  void read_some();

  bool input_may_wait_ = false;  // epoll takes nothing else
  bool reading_ = false;
  bool input_over_ = false;
  bool line_is_open_ = false;
  std::string told_;  // of a download
  Mono told_at_{};
  std::optional<int> exit_code_;  // once it is known, there is no more to do
};

// To stderr, one line. Where that takes nothing there is nobody left to tell.
void tell(const std::string& text);
void complain(const std::string& text);

}  // namespace bitctl
