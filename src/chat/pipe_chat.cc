#include "chat/pipe_chat.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <tuple>
#include <utility>

#include "base/exit_code.h"
#include "base/replace_file.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

constexpr Duration kTellEvery = std::chrono::seconds(10);

int code_of_signal(int signal) { return signal == SIGINT ? kInterrupted : 128 + signal; }

}  // namespace

void tell(const std::string& text) {
  std::ignore = write_all(STDERR_FILENO, visible_text(text, Newlines::keep) + "\n", "stderr");
}

void complain(const std::string& text) { tell("bitctl: " + text); }

PipeChat::PipeChat(const ChatOptions& options, ModelOpener opener)
    : options_(options),
      signals_(block_and_watch_signals({SIGINT, SIGTERM, SIGHUP})),
      session_(loop_, options, std::move(opener), *this) {}

void PipeChat::progressed() {
  const auto download = session_.download();
  if (!download || std::get<Bootstrap::Downloading>(download->stage).index == 0) return;
  const std::string text = state_text(*download);
  const bool begins = text != std::exchange(told_, text);
  if (!begins && loop_.now() - told_at_ < kTellEvery) return;
  told_at_ = loop_.now();
  tell("⏳ " + text + (begins ? "" : " " + session_.progress()));
}

int PipeChat::run() {
  if (const Status started = session_.start(); !started) {  // loads while the input is read
    complain(started.error().message);
    end(kFailed);
  }
  loop_.watch(signals_.get(), EPOLLIN,
              [this](uint32_t) { end(code_of_signal(next_signal(signals_.get()))); });
  if (!exit_code_ && wants_input())
    read_input();
  else if (!exit_code_)
    input_ended();
  while (!exit_code_) loop_.run_once();
  return *exit_code_;
}

void PipeChat::read_input() {
  if (reading_ || input_over_ || ended()) return;
  reading_ = true;
  struct stat st {};
  input_may_wait_ = ::fstat(STDIN_FILENO, &st) == 0 &&
                    (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode) || ::isatty(STDIN_FILENO));
  if (input_may_wait_)
    loop_.watch(STDIN_FILENO, EPOLLIN, [this](uint32_t) { read_some(); });
  else
    loop_.call_after(Duration::zero(), [this] { read_some(); });
}

void PipeChat::read_some() {
  std::array<char, 65536> buffer;
  const ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
  if (n > 0) input({buffer.data(), static_cast<size_t>(n)});
  input_over_ = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
  reading_ = !input_over_ && !has_enough() && !ended();
  if (input_may_wait_ && !reading_) loop_.unwatch(STDIN_FILENO);
  if (!input_may_wait_ && reading_) loop_.call_after(Duration::zero(), [this] { read_some(); });
  if (input_over_ && !ended()) input_ended();
}

void PipeChat::end(int code) {
  if (exit_code_) return;
  if (line_is_open_) write("\n");
  if (!exit_code_) exit_code_ = code;
}

void PipeChat::write(std::string_view text) {
  if (exit_code_ || text.empty()) return;
  line_is_open_ = !text.ends_with('\n');
  const Status written = write_all(STDOUT_FILENO, text, "stdout");
  if (written) return;
  const bool seen_enough = written.error().errno_value == EPIPE;
  exit_code_ = seen_enough ? kOk : kOwnFailure;
  if (!seen_enough) complain(written.error().message);
}

}  // namespace bitctl
