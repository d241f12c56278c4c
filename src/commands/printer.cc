#include "commands/printer.h"

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <variant>

#include "base/replace_file.h"
#include "pulse/view.h"

namespace bitctl {
namespace {

constexpr size_t kMostItems = 1000;
constexpr auto kLastWait = std::chrono::seconds(2);

struct Text {
  int fd;
  std::string text;
};

struct Frame {
  std::vector<std::string> lines;
  TerminalInfo terminal;
};

struct LeavePanel {};

using Item = std::variant<Text, Frame, LeavePanel>;

// A terminal that is gone is no reason to stop, so a failed write is passed over.
void write_out(int fd, const std::string& text) {
  if (!text.empty()) static_cast<void>(write_all(fd, text, "output"));
}

}  // namespace

struct Printer::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Item> items;
  bool writing = false;
  bool ending = false;

  void push(Item item);
  void run();
};

void Printer::Shared::push(Item item) {
  {
    const std::lock_guard guard(mutex);
    if (std::holds_alternative<Frame>(item) && !items.empty() && std::holds_alternative<Frame>(items.back()))
      items.pop_back();
    if (items.size() == kMostItems) items.pop_front();
    items.push_back(std::move(item));
  }
  changed.notify_all();
}

void Printer::Shared::run() {
  Panel panel;
  Frame shown;
  std::unique_lock lock(mutex);
  while (true) {
    changed.wait(lock, [this] { return ending || !items.empty(); });
    if (items.empty()) return;
    const Item item = std::move(items.front());
    items.pop_front();
    writing = true;
    lock.unlock();
    if (const auto* frame = std::get_if<Frame>(&item)) {
      shown = *frame;
      write_out(STDOUT_FILENO, panel.draw(shown.lines, shown.terminal));
    } else if (const auto* text = std::get_if<Text>(&item)) {
      write_out(STDOUT_FILENO, panel.erase());
      write_out(text->fd, text->text);
      write_out(STDOUT_FILENO, panel.draw(shown.lines, shown.terminal));
    } else {
      panel = Panel();
      shown = Frame();
    }
    lock.lock();
    writing = false;
    changed.notify_all();
  }
}

Printer::Printer() : shared_(std::make_shared<Shared>()) {
  std::thread([shared = shared_] { shared->run(); }).detach();
}

Printer::~Printer() {
  std::unique_lock lock(shared_->mutex);
  shared_->ending = true;
  shared_->changed.notify_all();
  shared_->changed.wait_for(lock, kLastWait, [this] { return shared_->items.empty() && !shared_->writing; });
}

void Printer::print(int fd, std::string text) { shared_->push(Text{fd, std::move(text)}); }

void Printer::draw(std::vector<std::string> lines, const TerminalInfo& terminal) {
  shared_->push(Frame{std::move(lines), terminal});
}

void Printer::leave_panel() { shared_->push(LeavePanel{}); }

}  // namespace bitctl
