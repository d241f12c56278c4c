// The chat on a terminal: keys, prompt, and the lines above it. One thread, one event loop.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/event_loop.h"
#include "chat/comparison.h"
#include "chat/composer.h"
#include "chat/keys.h"
#include "chat/mailbox.h"
#include "chat/options.h"
#include "chat/prompt_history.h"
#include "chat/screen.h"
#include "chat/session.h"
#include "chat/slash_command.h"
#include "chat/terminal.h"

namespace bitctl {

class Repl : private SessionView {
 public:
  // `started` is when the program began, for "[REPL ready in 4ms]".
  Repl(const ChatOptions& options, ModelOpener opener, Mono started);

  // Until the user leaves; returns the exit code. The terminal is as it was.
  int run();
  // A thread cannot be ended at once.
  bool busy() const { return (session_ && session_->busy()) || (comparison_ && comparison_->busy()); }
  void end_workers();

 private:
  void state_changed(const Bootstrap& state) override;
  void progressed() override;
  void prompt_queued(const Bootstrap& state) override;
  void prompt_refused(std::string_view reason, const std::string& text) override;
  void prompt_forwarded(std::string_view reason, const std::string& model, const std::string& url) override;
  void answer_begins(const std::string& prompt, bool was_queued) override;
  void answer_text(std::string_view text) override;
  void answer_ends(const GenerationEnd& end) override;
  void warning(const std::string& text) override;
  void shown(const std::string& text) override;

  void read_keys();
  void take(const std::vector<Key>& keys);
  void on_key(const Key& key);
  void sent(const std::string& text);
  void execute(const SlashCommand& command);  // repl_commands.cc
  void show(const std::string& what);
  void edit_last();
  void read_file(const std::string& path);
  void save(const std::string& path);
  void load(const std::string& path);
  void compare(const std::string& words);
  void set_seed(const std::string& text);
  void say_unless(const Status& done);  // the error, where there is one
  void interrupt();
  void on_signal();
  void edit_prompt();
  void suspend();
  void resume();
  void resized();
  void leave(int code);
  void await_late_answers();

  std::string send_keys() const;
  std::string hint() const;  // for the row below the prompt
  void draw();
  void say_log();
  void say(std::string_view line);  // foreign text is made visible
  void say_dim(std::string_view line);
  void show_prompt_text(std::string_view text);

  const ChatOptions options_;
  ModelOpener opener_;
  const Mono started_;
  const bool faint_;  // what is beside the conversation

  EventLoop loop_;
  Fd signals_;
  Terminal terminal_;
  Screen screen_;
  KeyParser parser_;
  Composer composer_;
  PromptHistory history_{prompt_history_path()};
  std::string last_sent_;
  Mailbox<std::string> log_;            // lines of any thread
  std::optional<ChatSession> session_;  // made behind the first prompt
  std::optional<Comparison> comparison_;

  std::optional<EventLoop::TimerId> settling_;
  bool tells_ctrl_enter_ = false;  // proved by an answer or by a key
  bool kitty_answered_ = false;
  bool attributes_answered_ = false;
  bool prompts_waited_ = false;
  int interrupts_in_a_row_ = 0;
  std::optional<int> exit_code_;  // once it is left
};

}  // namespace bitctl
