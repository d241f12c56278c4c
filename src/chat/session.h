// A conversation with a model that may still be loading: everything of a chat but the terminal. Prompts go
// in, text and changes of state come out through a SessionView. Lives on the event loop's thread; the slow
// parts are the loader's and the generator's threads and the text worker's process.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "chat/bootstrap.h"
#include "chat/generator.h"
#include "chat/loader.h"
#include "chat/options.h"
#include "chat/router.h"
#include "chat/text_worker.h"

namespace bitctl {

class SessionView {
 public:
  virtual ~SessionView() = default;
  virtual void state_changed(const Bootstrap& state) = 0;
  // The prompt waits in the queue; state_text() says for what.
  virtual void prompt_queued(const Bootstrap& state) = 0;
  // The prompt is not taken. `reason` is for machines, `text` for people.
  virtual void prompt_refused(std::string_view reason, const std::string& text) = 0;
  virtual void answer_begins(const std::string& prompt, bool was_queued) = 0;
  virtual void answer_text(std::string_view text) = 0;
  // Of an error, end.error says which.
  virtual void answer_ends(const GenerationEnd& end) = 0;
  virtual void warning(const std::string& text) = 0;
};

class ChatSession {
 public:
  ChatSession(EventLoop& loop, const ChatOptions& options, ModelOpener opener, SessionView& view);
  ~ChatSession();
  ChatSession(const ChatSession&) = delete;

  // Starts the threads and the text worker, and with them the loading.
  void start();
  void submit(std::string prompt);
  // Stops the answer that is being made; false where there is none. At once where only the text worker is
  // waited for, which is replaced then; else behind the token that is being computed.
  bool stop_answer();
  // Forgets the prompts that wait; how many there were.
  size_t drop_queue();
  // After a failure: loads again what is not there. False where nothing has failed.
  bool retry();
  // Forgets the conversation; false while an answer is being made.
  bool clear();
  void set_system(std::string text) { system_ = std::move(text); }

  const Bootstrap& state() const { return state_; }
  bool answering() const { return turn_.has_value(); }
  // A thread is in the middle of something that cannot be stopped at once.
  bool busy() const { return loading_ || answering(); }
  // For a process that ends without destructors: no text worker stays behind.
  void end_worker() { worker_.end(); }
  // For people: state, decoder, sampling, conversation. Several lines.
  std::string status() const;

 private:
  struct Message {
    std::string role;
    std::string content;
  };
  struct Turn {
    uint64_t id = 0;
    std::string prompt;
    std::string answer = {};
    bool generating = false;
    std::optional<GenerationEnd> end = {};  // the generator's; the text may still be on its way
  };

  void advance(const BootstrapEvent& event);
  void fail_load(const std::string& reason);
  void start_worker();
  void load_text();
  void on_loader_event(LoaderEvent event);
  void on_text_loaded(Result<Json> reply);
  void on_worker_death(const std::string& reason);

  void begin_turn(std::string prompt, bool was_queued);
  void next_turn();
  void on_encoded(uint64_t turn, Result<Json> reply);
  void on_generated(const std::vector<GenerationEvent>& events);
  void ask_for_text(const std::vector<int32_t>& ids, bool last);
  void on_text(uint64_t turn, Result<Json> reply, bool last);
  void end_turn(GenerationEnd end);

  SamplerOptions sampling() const;
  int64_t max_new_tokens() const;

  EventLoop& loop_;
  const ChatOptions options_;
  SessionView& view_;
  std::string system_;
  const uint64_t seed_;

  Bootstrap state_;
  bool loading_ = false;  // the loader has not said its last word
  std::optional<ModelFiles> files_;
  bool text_ready_ = false;
  Json generation_;  // the model's own defaults
  std::vector<int32_t> stop_ids_;
  std::string template_;  // where it was found; empty: none

  std::vector<Message> conversation_;
  std::deque<std::string> queue_;
  std::optional<Turn> turn_;
  uint64_t next_turn_ = 1;

  TextWorker worker_;
  Loader loader_;
  Generator generator_;
};

}  // namespace bitctl
