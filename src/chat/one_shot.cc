#include "chat/one_shot.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <tuple>
#include <utility>

#include "base/exit_code.h"
#include "base/replace_file.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

// How long an input may be silent before the user is told what is waited for.
constexpr auto kInputDelay = std::chrono::seconds(1);

// Where stderr takes nothing there is nobody left to tell.
void tell(const std::string& text) {
  std::ignore = write_all(STDERR_FILENO, visible_text(text, Newlines::keep) + "\n", "stderr");
}

void complain(const std::string& text) { tell("bitctl: " + text); }

int code_of_signal(int signal) { return signal == SIGINT ? kInterrupted : 128 + signal; }

}  // namespace

// The signals are blocked before the session starts its threads.
OneShot::OneShot(const ChatOptions& options, ModelOpener opener)
    : options_(options),
      signals_(block_and_watch_signals({SIGINT, SIGTERM, SIGHUP})),
      session_(loop_, options, std::move(opener), *this) {}

int OneShot::run() {
  if (const Status started = session_.start(); !started) {  // loads while the prompt is read
    complain(started.error().message);
    end(kFailed);
  }
  loop_.watch(signals_.get(), EPOLLIN,
              [this](uint32_t) { end(code_of_signal(next_signal(signals_.get()))); });
  if (options_.prompt && ::isatty(STDIN_FILENO))
    submit();
  else
    read_input();
  while (!exit_code_) loop_.run_once();
  return *exit_code_;
}

void OneShot::read_input() {
  struct stat st {};
  const bool may_wait = ::fstat(STDIN_FILENO, &st) == 0 &&
                        (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode) || ::isatty(STDIN_FILENO));
  if (!may_wait) {  // epoll refuses it
    while (!exit_code_ && take_input()) loop_.run_once(Duration::zero());
    return;
  }
  loop_.watch(STDIN_FILENO, EPOLLIN, [this](uint32_t) {
    if (!take_input()) loop_.unwatch(STDIN_FILENO);
  });
  // With -p nobody may have meant to write to what happens to be our standard input.
  if (options_.prompt)
    loop_.call_after(kInputDelay, [this] {
      if (!submitted_) tell("reading standard input, until its end…");
    });
}

bool OneShot::take_input() {
  std::array<char, 65536> buffer;
  const ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
  if (n > 0) input_.append(buffer.data(), static_cast<size_t>(n));
  if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) return true;
  submit();
  return false;
}

void OneShot::submit() {
  if (exit_code_) return;
  submitted_ = true;
  std::string prompt = options_.prompt.value_or("");
  if (!input_.empty()) prompt += (prompt.empty() ? "" : "\n") + input_;
  prompt = valid_utf8(prompt);
  while (!prompt.empty() && prompt.back() == '\n') prompt.pop_back();
  if (prompt.find_first_not_of(" \t\r\n") == std::string::npos) {
    complain("no prompt: give -p TEXT, or a text on standard input");
    return end(kUsage);
  }
  session_.submit(prompt);
}

void OneShot::end(int code) {
  if (exit_code_) return;
  if (std::exchange(line_is_open_, false)) write("\n");
  if (!exit_code_) exit_code_ = code;
}

void OneShot::write(std::string_view text) {
  if (exit_code_) return;
  const Status written = write_all(STDOUT_FILENO, text, "stdout");
  if (written) return;
  exit_code_ = kOk;  // a reader that has seen enough
  if (written.error().errno_value == EPIPE) return;
  exit_code_ = kOwnFailure;
  complain(written.error().message);
}

void OneShot::state_changed(const Bootstrap& state) {
  if (state.is<Bootstrap::Failed>() || state.is<Bootstrap::NotAvailable>()) {
    complain(state_text(state));
    return end(kFailed);
  }
  if (waiting_) tell(state.is<Bootstrap::Ready>() ? state_text(state) : "⏳ " + state_text(state));
}

void OneShot::prompt_queued(const Bootstrap& state) {
  waiting_ = true;
  tell("⏳ " + state_text(state));
}

void OneShot::prompt_refused(std::string_view reason, const std::string& text) {
  complain(std::string(reason) + ": " + text);
  end(kFailed);
}

void OneShot::answer_text(std::string_view text) {
  write(::isatty(STDOUT_FILENO) ? visible_text(text, Newlines::keep) : std::string(text));
  line_is_open_ = !text.ends_with('\n');
}

void OneShot::answer_ends(const GenerationEnd& answer) {
  end(answer.reason == StopReason::error ? kFailed : kOk);
  if (answer.reason == StopReason::error) complain(answer.error);
  if (options_.verbose && answer.new_tokens > 0) tell(figures(answer));
}

void OneShot::warning(const std::string& text) { tell(text); }

void OneShot::shown(const std::string& text) { tell(text); }

}  // namespace bitctl
