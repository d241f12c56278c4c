#include "chat/one_shot.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include "base/exit_code.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n > 0)
      text.remove_prefix(static_cast<size_t>(n));
    else if (errno != EINTR)
      return;
  }
}

void complain(const std::string& text) {
  write_all(STDERR_FILENO, "bitctl: " + visible_text(text, Newlines::keep) + "\n");
}

void tell(const std::string& text) { write_all(STDERR_FILENO, visible_text(text, Newlines::keep) + "\n"); }

int code_of_signal(int signal) { return signal == SIGINT ? kInterrupted : 128 + signal; }

}  // namespace

// The signals are blocked before the session starts its threads.
OneShot::OneShot(const ChatOptions& options, ModelOpener opener)
    : options_(options),
      signals_(block_and_watch_signals({SIGINT, SIGTERM, SIGHUP})),
      session_(loop_, options, std::move(opener), *this) {}

int OneShot::run() {
  session_.start();  // loads while the prompt is read
  std::string prompt = options_.prompt.value_or("");
  if (!options_.prompt || !::isatty(STDIN_FILENO)) {
    const std::string input = read_input();
    if (!input.empty()) prompt += (prompt.empty() ? "" : "\n") + input;
  }
  if (exit_code_) return *exit_code_;
  prompt = valid_utf8(prompt);
  while (!prompt.empty() && prompt.back() == '\n') prompt.pop_back();
  if (prompt.find_first_not_of(" \t\r\n") == std::string::npos) {
    complain("no prompt: give -p TEXT, or a text on standard input");
    return kUsage;
  }
  loop_.watch(signals_.get(), EPOLLIN,
              [this](uint32_t) { end(code_of_signal(next_signal(signals_.get()))); });
  session_.submit(prompt);
  while (!exit_code_) loop_.run_once();
  return *exit_code_;
}

std::string OneShot::read_input() {
  std::string input;
  std::array<char, 65536> buffer;
  while (true) {
    std::array<pollfd, 2> either{{{STDIN_FILENO, POLLIN, 0}, {signals_.get(), POLLIN, 0}}};
    if (::poll(either.data(), either.size(), -1) < 0) continue;
    if (either[1].revents != 0) {
      exit_code_ = code_of_signal(next_signal(signals_.get()));
      return input;
    }
    const ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (n <= 0) return input;
    input.append(buffer.data(), static_cast<size_t>(n));
  }
}

void OneShot::end(int code) {
  if (line_is_open_) write_all(STDOUT_FILENO, "\n");
  exit_code_ = code;
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
  write_all(STDOUT_FILENO, ::isatty(STDOUT_FILENO) ? visible_text(text, Newlines::keep) : std::string(text));
  line_is_open_ = !text.ends_with('\n');
}

void OneShot::answer_ends(const GenerationEnd& answer) {
  end(answer.reason == StopReason::error ? kFailed : kOk);
  if (answer.reason == StopReason::error) complain(answer.error);
  if (options_.verbose && answer.new_tokens > 0) tell(figures(answer));
}

void OneShot::warning(const std::string& text) { tell(text); }

}  // namespace bitctl
