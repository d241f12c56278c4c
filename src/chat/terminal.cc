#include "chat/terminal.h"

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

// Async-signal-safe.
void undo() {
  if (!g_raw.exchange(false)) return;
  const std::string_view bytes = g_extended ? kUndoAll : kUndoPaste;
  [[maybe_unused]] const ssize_t written = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
  ::tcsetattr(STDIN_FILENO, TCSADRAIN, &g_before);
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
  write(kPasteOn);
  if (extended_keys_) write(kPushKitty);
  if (other_keys_) write(kOtherKeysOn);
  return true;
}

void Terminal::leave() {
  if (!std::exchange(entered_, false)) return;
  undo();
}

void Terminal::ask_what_it_tells() {
  if (extended_keys_) write(std::string(kAskKitty) + std::string(kAskAttributes));
}

void Terminal::ask_for_other_keys() {
  other_keys_ = true;
  write(kOtherKeysOn);
}

void Terminal::write(std::string_view bytes) const {
  while (!bytes.empty()) {
    const ssize_t n = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
    if (n > 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (n < 0 && errno == EAGAIN) {
      pollfd wait{STDOUT_FILENO, POLLOUT, 0};
      ::poll(&wait, 1, -1);
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
