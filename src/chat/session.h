// A conversation with a model that may still be loading: everything of a chat but the terminal. Prompts go
// in, text and changes of state come out through a SessionView. Lives on the event loop's thread; the slow
// parts are the loader's and the generator's threads and the text worker's process.
#pragma once

#include <deque>
#include <initializer_list>
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
#include "chat/sampling.h"
#include "chat/transcript.h"
#include "chat/transfer_rate.h"
#include "chat/worker_process.h"

namespace bitctl {

class SessionView {
 public:
  virtual ~SessionView() = default;
  virtual void state_changed(const Bootstrap& state) = 0;
  // A download or a load has gone on, or has not for another second; progress() has the figures.
  virtual void progressed() {}
  // The prompt waits in the queue; state_text() says for what.
  virtual void prompt_queued(const Bootstrap& state) = 0;
  // The prompt is not taken. `reason` is for machines, `text` for people.
  virtual void prompt_refused(std::string_view reason, const std::string& text) = 0;
  // The answer that begins is that of the remote: `model` at `url`.
  virtual void prompt_forwarded(std::string_view, const std::string& /*model*/, const std::string& /*url*/) {}
  virtual void answer_begins(const std::string& prompt, bool was_queued) = 0;
  virtual void answer_text(std::string_view text) = 0;
  // Of an error, end.error says which.
  virtual void answer_ends(const GenerationEnd& end) = 0;
  virtual void warning(const std::string& text) = 0;
  virtual void shown(const std::string& text) = 0;  // what show_prompt() and its like were asked for
};

class ChatSession {
 public:
  ChatSession(EventLoop& loop, const ChatOptions& options, ModelOpener opener, SessionView& view);
  ~ChatSession();
  ChatSession(const ChatSession&) = delete;

  // Starts the threads and the text worker, and with them the loading. An error is of options.go_on: there is
  // no conversation to go on with; a new one is begun then.
  Status start();
  void submit(std::string prompt);
  // Stops the answer that is being made; false where there is none. At once where only the text worker is
  // waited for, which is replaced then; else behind the token that is being computed.
  bool stop_answer();
  // Forgets the prompts that wait; how many there were.
  size_t drop_queue();
  // After a failure: loads again what is not there, and goes on with a download. False where nothing has
  // failed.
  bool retry();
  // Ends a download or a load, at once; retry() takes it up again. False where there is none.
  bool cancel_load();

  // Another model answers from here on. An answer that is being made ends first; prompts that come meanwhile
  // wait for the new one. Where it cannot be found, the old one stays, and a warning says so. While it is
  // downloaded, the old one answers.
  void use_model(ModelChoice choice);
  // The newest checkpoint of the run that answers; Error::invalid where none does.
  Status use_latest();

  // The conversation. Error::invalid while an answer is being made, and where there is nothing to take back.
  const Conversation& conversation() const { return conversation_; }
  Status clear();
  Status go_on_with(Conversation conversation);
  Status regenerate();         // answers the last prompt again, in the place of its answer
  Result<std::string> undo();  // takes back the last prompt, which it returns, and its answer
  void set_system(std::string text) { conversation_.system = std::move(text); }
  Sampling& sampling() { return sampling_; }

  const Bootstrap& state() const { return state_; }
  bool answering() const { return turn_.has_value(); }
  // A thread is in the middle of something that cannot be stopped at once.
  bool busy() const { return loading_ || answering(); }
  // For a process that ends without destructors: no worker stays behind.
  void end_workers();

  // What is being downloaded, for the model in use or the one to come.
  std::optional<Bootstrap> download() const;
  // "[=====>    ] 45% (2.1GB / 4.7GB), 35.2MB/s, 1m14s left" of a download or a load; empty where there is
  // none.
  std::string progress() const;

  // For people, several lines each.
  std::string status() const;
  std::string stats() const;
  // The conversation as the model reads it, and its template; later, from the text worker.
  void show_prompt();
  void show_template();
  const std::string& transcript_path() const { return transcript_.path(); }
  std::string run() const { return files_ ? files_->run : ""; }  // that the model is of; empty: of none
  std::string model_name() const { return files_ ? files_->name : state_.model; }

 private:
  struct Turn {
    uint64_t id = 0;
    std::string prompt;
    size_t replaces = 0;  // the last messages, which its answer takes the place of
    size_t dropped = 0;   // old messages left out for its sake
    bool forwarded = false;
    std::string model = {};  // of a forwarded one: who answers
    std::string answer = {};
    uint64_t seed = 0;
    bool generating = false;
    std::optional<GenerationEnd> end = {};  // the generator's; the text may still be on its way
  };
  struct Download {
    ModelChoice choice;
    bool beside = false;  // another model answers meanwhile
    Bootstrap state;
    std::string message;  // why it was not found here
    std::optional<EventLoop::TimerId> tick = {};
  };
  struct Totals {
    size_t answers = 0;
    size_t new_tokens = 0;
    GenerationEnd last;
  };

  // session_load.cc: from a name to a model that answers.
  void advance(std::initializer_list<BootstrapEvent> events);
  void fail_load(const std::string& reason);
  void start_worker();
  void load_text();
  void on_loader_event(LoaderEvent event);
  void on_found(Result<ModelFiles> found);
  void on_not_found(const Error& error, bool switched);
  void begin_load();
  void on_opened(Result<std::unique_ptr<Decoder>> opened);
  void load_ended();
  void on_text_loaded(Result<Json> reply);
  void on_worker_death(const std::string& reason);

  // session_download.cc
  void on_only_on_hub(const OnlyOnHub& missing);
  void begin_download(const OnlyOnHub& missing, bool beside);
  void on_download(Result<Json> reply);
  void download_ended(const std::string& failure);
  void tick();

  // session_remote.cc
  void forward_prompt(std::string prompt, bool was_queued);
  void on_remote(uint64_t turn, Result<Json> reply);
  void on_remote_failure(const std::string& reason);

  Routing route() const;
  void begin_turn(std::string prompt, bool was_queued, size_t replaces = 0);
  void next_turn();
  Json messages(std::string_view prompt, size_t replaces) const;
  void encode();
  void on_encoded(uint64_t turn, Result<Json> reply);
  void on_generated(const std::vector<GenerationEvent>& events);
  void ask_for_text(const std::vector<int32_t>& ids, bool last);
  void on_text(uint64_t turn, Result<Json> reply, bool last);
  void end_turn(GenerationEnd end);
  void keep(const Turn& turn, const GenerationEnd& end);
  void warn_once_of(const Status& transcript);
  void forget_context();
  void show(Json request);

  EventLoop& loop_;
  const ChatOptions options_;
  SessionView& view_;
  Sampling sampling_;

  Bootstrap state_;
  ModelChoice choice_;                 // of the model that answers, or is to
  ModelChoice before_;                 // of the one before, where switching_
  bool loading_ = false;               // the loader has not said its last word
  bool cancelled_ = false;             // and nobody listens to it
  bool again_ = false;                 // then it is to start again
  bool switching_ = false;             // to a model that is not found yet
  std::vector<LoaderEvent> held_;      // of the next model, until the answer of the old one has ended
  std::optional<ModelChoice> wanted_;  // asked for while the loader was at work
  std::optional<Download> download_;
  std::string downloaded_;                 // the last one that came whole
  std::optional<ModelChoice> unfinished_;  // was being downloaded beside the model that answers
  TransferRate rate_;                      // of the download or the load
  std::optional<ModelFiles> files_;
  bool weights_ready_ = false;  // the decoder's are those of files_
  bool text_ready_ = false;
  uint64_t text_loads_ = 0;
  std::vector<int32_t> stop_ids_;
  std::string template_;  // where it was found; empty: none

  Conversation conversation_;
  size_t first_kept_ = 0;  // messages before it are left out of what the model reads
  bool warned_of_context_ = false;
  Transcript transcript_;
  bool transcript_failed_ = false;
  std::deque<std::string> queue_;
  bool remote_failed_ = false;  // what waits since then is the model's
  std::optional<Turn> turn_;
  uint64_t next_turn_ = 1;
  Totals totals_;

  WorkerProcess worker_;
  WorkerProcess hub_;
  WorkerProcess remote_;
  Loader loader_;
  Generator generator_;
};

}  // namespace bitctl
