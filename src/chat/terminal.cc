#include "chat/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <string>

#include "base/environment_variable.h"

namespace bitctl {
namespace {

constexpr std::string_view kPasteOn = "\x1b[?2004h";
constexpr std::string_view kPushKitty = "\x1b[>1u";
constexpr std::string_view kAskKitty = "\x1b[?u";
constexpr std::string_view kAskAttributes = "\x1b[c";
constexpr std::string_view kOtherKeysOn = "\x1b[>4;2m";
// Undone in one write; a terminal that never did a part of it ignores that part.
constexpr std::string_view kUndoPaste = "\x1b[?2004l";
constexpr std::string_view kUndoAll = "\x1b[<u\x1b[>4m\x1b[?2004l";

// All that would end the process, but for those that the caller takes as events and SIGPIPE, which it
// ignores.
constexpr std::array kDeadlySignals{SIGABRT, SIGSEGV, SIGBUS,  SIGFPE,    SIGILL,   SIGTRAP,
                                    SIGSYS,  SIGXCPU, SIGXFSZ, SIGUSR1,   SIGUSR2,  SIGALRM,
                                    SIGPROF, SIGPOLL, SIGPWR,  SIGVTALRM, SIGSTKFLT};

// What the handler of a deadly signal needs, so it is set before raw mode is.
termios g_before{};
std::atomic<bool> g_raw = false;
std::atomic<bool> g_extended = false;

constexpr int kPatienceMs = 100;  // with a terminal that takes nothing

bool takes_bytes(int fd) {
  pollfd wait{fd, POLLOUT, 0};
  return ::poll(&wait, 1, kPatienceMs) > 0;
}

bool foreground() {
  const pid_t group = ::tcgetpgrp(STDIN_FILENO);
  return group < 0 || group == ::getpgrp();
}

// Async-signal-safe.
void undo() {
  if (!g_raw.exchange(false)) return;
  sigset_t stop, before;  // a job that is killed in the background is not to be stopped once more
  ::sigemptyset(&stop);
  ::sigaddset(&stop, SIGTTOU);
  ::pthread_sigmask(SIG_BLOCK, &stop, &before);
  const std::string_view bytes = g_extended ? kUndoAll : kUndoPaste;
  if (takes_bytes(STDOUT_FILENO)) [[maybe_unused]]
    const ssize_t written = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
  if (foreground()) ::tcsetattr(STDIN_FILENO, TCSANOW, &g_before);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

bool is_to_end() {
  sigset_t pending;
  ::sigpending(&pending);
  return ::sigismember(&pending, SIGTERM) || ::sigismember(&pending, SIGHUP) ||
         ::sigismember(&pending, SIGQUIT);
}

void undo_and_die(int signal) {
  undo();
  ::raise(signal);  // the handler is already reset
}

winsize size() {
  winsize size{};
  ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
  return size;
}

}  // namespace

bool Terminal::is_there() {
  return ::isatty(STDIN_FILENO) && ::isatty(STDOUT_FILENO) && environment_variable("TERM") != "dumb";
}

bool Terminal::enter() {
  if (entered_) return true;
  if (::tcgetattr(STDIN_FILENO, &g_before) != 0) return false;
  termios raw = g_before;
  raw.c_iflag &= ~static_cast<tcflag_t>(ICRNL | INLCR | IGNCR | IXON | ISTRIP | BRKINT);
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG | IEXTEN);
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  struct sigaction action {};
  action.sa_handler = undo_and_die;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : kDeadlySignals) ::sigaction(signal, &action, nullptr);
  for (int signal = SIGRTMIN; signal <= SIGRTMAX; ++signal) ::sigaction(signal, &action, nullptr);
  // VS Code's terminal drops committed CJK characters under kitty's protocol (xtermjs/xterm.js#6112); the
  // Linux console knows none of it.
  extended_keys_ =
      environment_variable("TERM_PROGRAM") != "vscode" && environment_variable("TERM") != "linux";
  g_extended = extended_keys_;
  g_raw = true;
  if (::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) != 0) {
    g_raw = false;
    return false;
  }
  entered_ = true;
  if (!output_) output_ = Fd(::open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  // At once: each write may wake the terminal before the prompt is there.
  std::string wishes(kPasteOn);
  if (extended_keys_) wishes += kPushKitty;
  if (other_keys_) wishes += kOtherKeysOn;
  write(wishes);
  return true;
}

void Terminal::leave() {
  if (!std::exchange(entered_, false)) return;
  undo();
}

bool Terminal::in_foreground() const { return foreground(); }

void Terminal::ask_what_it_tells() {
  if (extended_keys_) write(std::string(kAskKitty) + std::string(kAskAttributes));
}

void Terminal::ask_for_other_keys() {
  other_keys_ = true;
  write(kOtherKeysOn);
}

void Terminal::write(std::string_view bytes) {
  const int fd = output_ ? output_.get() : STDOUT_FILENO;  // another user's terminal cannot be opened
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n > 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (n < 0 && errno == EAGAIN) {
      while (!given_up_ && !takes_bytes(fd)) given_up_ = is_to_end();
      if (given_up_) return;
    } else if (n < 0 && errno != EINTR) {
      return;  // the terminal is gone; SIGHUP says so
    }
  }
}

int Terminal::width() const {
  const int columns = size().ws_col;
  return columns > 0 ? columns : 80;
}

int Terminal::height() const {
  const int rows = size().ws_row;
  return rows > 0 ? rows : 24;
}

}  // namespace bitctl
