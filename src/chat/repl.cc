#include "chat/repl.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "base/environment_variable.h"
#include "base/exit_code.h"
#include "base/log.h"
#include "base/text.h"
#include "base/visible_text.h"
#include "chat/external_editor.h"
#include "chat/graphemes.h"

namespace bitctl {
namespace {

// How long leaving waits for an answer the terminal still owes, which the shell would read as typed.
constexpr int kLateAnswerMs = 50;

// A smaller model is there before its figures are read.
constexpr uint64_t kLongLoad = uint64_t{256} << 20;

double milliseconds(Duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

}  // namespace

Repl::Repl(const ChatOptions& options, ModelOpener opener, Mono started)
    : options_(options),
      opener_(std::move(opener)),
      started_(started),
      faint_(environment_variable("NO_COLOR").empty()),
      screen_(terminal_.width()),
      composer_(options.enter_sends) {}

// The prompt first: nothing before it reads a file, starts a thread or waits for the terminal.
int Repl::run() {
  signals_ = block_and_watch_signals({SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH});
  std::signal(SIGPIPE, SIG_IGN);
  if (!terminal_.enter()) {
    std::fprintf(stderr, "bitctl: the terminal takes no raw mode: %s\n", std::strerror(errno));
    return kOwnFailure;
  }
  // What a log line is written over would stand there as it fell.
  if (::isatty(STDERR_FILENO)) log_to([this](std::string line) { log_.post(std::move(line)); });
  draw();
  const Duration took = std::chrono::steady_clock::now() - started_;
  session_.emplace(loop_, options_, opener_, static_cast<SessionView&>(*this));
  if (const Status started = session_->start(); !started) say("✗ " + started.error().message);
  terminal_.ask_what_it_tells();
  composer_.remember(history_.read());
  if (options_.verbose) say(fmt::format("[REPL ready in {:.0f}ms]", std::ceil(milliseconds(took))));
  loop_.watch(STDIN_FILENO, EPOLLIN, [this](uint32_t) { read_keys(); });
  loop_.watch(signals_.get(), EPOLLIN, [this](uint32_t) { on_signal(); });
  loop_.watch(log_.fd(), EPOLLIN, [this](uint32_t) { say_log(); });
  loop_.run();
  return exit_code_.value_or(kOk);
}

void Repl::leave(int code) {
  exit_code_ = code;
  log_to_stderr();
  say_log();
  if (terminal_.in_foreground()) terminal_.write(screen_.take_prompt_away());
  if (code == kOk) await_late_answers();
  terminal_.leave();
  loop_.stop();
}

void Repl::await_late_answers() {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  while (!attributes_answered_ && terminal_.expects_answers() && ::poll(&input, 1, kLateAnswerMs) > 0) {
    std::array<char, 256> buffer;
    const ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (n <= 0) return;
    for (const Key& key : parser_.feed({buffer.data(), static_cast<size_t>(n)}))
      attributes_answered_ |= key.kind == KeyKind::device_attributes;
  }
}

void Repl::read_keys() {
  std::array<char, 65536> buffer;
  const ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
  if (n == 0 || (n < 0 && errno == EIO)) return leave(kOk);
  if (n < 0) return;
  if (settling_) loop_.cancel(*std::exchange(settling_, std::nullopt));
  take(parser_.feed({buffer.data(), static_cast<size_t>(n)}));
  if (const auto silence = parser_.settles_after())
    settling_ = loop_.call_after(*silence, [this] {
      settling_.reset();
      take(parser_.settle());
    });
}

void Repl::take(const std::vector<Key>& keys) {
  for (const Key& key : keys) {
    on_key(key);
    if (exit_code_) return;
  }
  draw();
}

void Repl::on_key(const Key& key) {
  tells_ctrl_enter_ |= key.extended || (key.kind == KeyKind::kitty_flags && (key.flags & 1) != 0);
  if (key.kind == KeyKind::kitty_flags) kitty_answered_ = true;
  if (key.kind == KeyKind::device_attributes && !std::exchange(attributes_answered_, true) &&
      !kitty_answered_)
    terminal_.ask_for_other_keys();
  const Intention intention = composer_.apply(key, text_width(terminal_.width()));
  if (intention.kind != Intention::Kind::interrupt) interrupts_in_a_row_ = 0;
  switch (intention.kind) {
    case Intention::Kind::none:
      return;
    case Intention::Kind::send:
      return sent(intention.text);
    case Intention::Kind::leave:
      return leave(kOk);
    case Intention::Kind::interrupt:
      return interrupt();
    case Intention::Kind::suspend:
      return suspend();
    case Intention::Kind::edit_externally:
      return edit_prompt();
    case Intention::Kind::redraw:
      return terminal_.write(screen_.take_prompt_away() + "\x1b[H\x1b[2J");
  }
}

void Repl::sent(const std::string& text) {
  show_prompt_text(text);
  if (text != std::exchange(last_sent_, text))
    if (const Status kept = history_.add(text); !kept) say_dim(kept.error().message);
  execute(interpret(text));
}

void Repl::end_workers() {
  session_->end_workers();
  if (comparison_) comparison_->end_workers();
}

void Repl::interrupt() {
  if (comparison_) return comparison_->stop();
  if (session_->stop_answer()) return;
  if (!composer_.editor().empty()) return composer_.clear();
  if (const size_t dropped = session_->drop_queue(); dropped > 0)
    return say(fmt::format("{} waiting {} dropped", dropped, dropped == 1 ? "prompt" : "prompts"));
  if (session_->cancel_load()) return;
  if (++interrupts_in_a_row_ >= 2) say("Ctrl+D or /quit leaves");
}

void Repl::on_signal() {
  while (const int signal = next_signal(signals_.get())) {
    switch (signal) {
      case SIGINT:
        interrupt();
        break;
      case SIGTSTP:
        suspend();
        break;
      case SIGCONT:
        resume();
        break;
      case SIGWINCH:
        resized();
        break;
      default:
        return leave(128 + signal);
    }
  }
  draw();
}

void Repl::edit_prompt() {
  terminal_.write(screen_.take_prompt_away());
  terminal_.leave();
  const auto edited = edit_externally(composer_.editor().text());
  // A Ctrl-C in the editor was the editor's; what ends us does so now.
  while (const int signal = next_signal(signals_.get()))
    if (signal == SIGTERM || signal == SIGHUP) return leave(128 + signal);
  resume();
  if (edited)
    composer_.replace(cleaned_paste(*edited));
  else
    say(edited.error().message);
}

void Repl::suspend() {
  terminal_.write(screen_.take_prompt_away());
  terminal_.leave();
  // By SIGTSTP, which the kernel drops where no shell is above that could wake us.
  sigset_t stop;
  ::sigemptyset(&stop);
  ::sigaddset(&stop, SIGTSTP);
  std::signal(SIGTSTP, SIG_DFL);
  ::raise(SIGTSTP);
  ::pthread_sigmask(SIG_UNBLOCK, &stop, nullptr);  // stops here
  ::pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  // Woken in order to be ended, in the background perhaps, nothing is drawn any more.
  sigset_t pending;
  ::sigpending(&pending);
  ::sigismember(&pending, SIGCONT) ? on_signal() : resume();
}

void Repl::resume() {
  if (exit_code_) return;
  terminal_.leave();  // the shell may have changed what we set
  terminal_.enter();
  resized();
}

void Repl::resized() { terminal_.write(screen_.resize(terminal_.width())); }

void Repl::state_changed(const Bootstrap& state) {
  const std::string text = state_text(state);
  if (state.is<Bootstrap::Ready>()) {
    say(text);
    if (prompts_waited_) say("✓ Model ready - future queries will use local generation");
    prompts_waited_ = false;
  } else if (state.is<Bootstrap::Failed>() || state.is<Bootstrap::NotAvailable>()) {
    say(text + "\n/retry loads it again");
  } else {
    say(state.is<Bootstrap::Loading>() ? "⏳ Loading model..."
        : state.is<Bootstrap::Downloading>()
            ? fmt::format("⏳ Downloading {} (first time only)...", state.model)
            : "⏳ " + text);
  }
  draw();  // the hint is of this state
}

// Where somebody writes, the figures wait: an input method shows what is not ours yet at the cursor.
void Repl::progressed() {
  if (composer_.editor().empty()) draw();
}

void Repl::prompt_queued(const Bootstrap& state) {
  prompts_waited_ = true;
  say("⏳ " + state_text(state));
}

void Repl::prompt_forwarded(std::string_view reason, const std::string& model, const std::string& url) {
  prompts_waited_ = true;
  say_dim(forwarded_text(reason, model, url));
}

void Repl::prompt_refused(std::string_view reason, const std::string& text) {
  say(fmt::format("{}: {}", reason, text));
}

void Repl::answer_begins(const std::string& prompt, bool was_queued) {
  if (was_queued) show_prompt_text(prompt);
}

void Repl::answer_text(std::string_view text) {
  terminal_.write(screen_.print(visible_text(text, Newlines::keep)));
}

void Repl::answer_ends(const GenerationEnd& end) {
  terminal_.write(screen_.end_line());
  if (end.reason == StopReason::interrupted) say_dim("[interrupted]");
  if (end.reason == StopReason::length)
    say_dim(end.context_full ? std::string("[stopped: the context is full]")
                             : fmt::format("[stopped after {} tokens]", end.new_tokens));
  if (end.reason == StopReason::error) say("✗ " + end.error);
  if (options_.verbose && end.new_tokens > 0) say_dim(figures(end));
}

void Repl::warning(const std::string& text) { say(text); }

void Repl::shown(const std::string& text) { say(text); }

std::string Repl::send_keys() const {
  if (options_.enter_sends) return "Enter";
  return tells_ctrl_enter_ ? "Ctrl+Enter" : "Alt+Enter or Ctrl+J";
}

std::string Repl::hint() const {
  const std::string search = composer_.search_hint();
  if (!search.empty() || !session_ || !composer_.editor().empty()) return search;
  const std::string progress = session_->progress();
  const auto download = session_->download();
  const auto* loading = std::get_if<Bootstrap::Loading>(&session_->state().stage);
  if (!download) return loading != nullptr && loading->total >= kLongLoad ? progress : "";
  const auto& now = std::get<Bootstrap::Downloading>(download->stage);
  return fmt::format("{}{}{}/{} {}", progress, progress.empty() ? "" : ", ", now.index, now.count, now.file);
}

void Repl::draw() {
  if (!terminal_.entered()) return;
  terminal_.write(screen_.draw(prompt_frame(composer_.editor().text(), composer_.editor().cursor(),
                                            {.width = terminal_.width(),
                                             .height = terminal_.height(),
                                             .send_keys = send_keys(),
                                             .hint = hint(),
                                             .faint = faint_})));
}

void Repl::say_log() {
  for (const std::string& line : log_.take()) say_dim(line);
}

void Repl::say(std::string_view line) {
  terminal_.write(screen_.print_line(visible_text(line, Newlines::keep)));
}

void Repl::say_dim(std::string_view line) {
  const std::string text = visible_text(line, Newlines::keep);
  terminal_.write(screen_.print_line(faint_ ? faint(text) : text));
}

void Repl::show_prompt_text(std::string_view text) {
  std::string lines;
  for (const auto& line : split(text, '\n')) lines += (lines.empty() ? "> " : "\n  ") + line;
  say(lines);
}

}  // namespace bitctl
