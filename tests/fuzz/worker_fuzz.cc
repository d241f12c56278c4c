// A text worker that says anything at all, and the session that has to live with it. No process is started:
// posix_spawn() below keeps the worker's end of the socket here.
#include <sched.h>
#include <spawn.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>

#include "base/text.h"
#include "chat/session.h"
#include "unit/chat/fake_decoder.h"

using namespace bitctl;

namespace {

Fd g_far_end;  // the worker's end of the socket
pid_t g_worker = 0;
std::function<void(Fd)> g_spawned;

void check(bool holds) {
  if (!holds) std::abort();
}

// What is killed and waited for instead of a worker. It shares our memory, which makes it cheap;
// no sanitizer may put anything in.
__attribute__((no_sanitize("address", "thread", "undefined"))) int sleep_for_ever(void*) {
  ::syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
  while (true) ::syscall(SYS_ppoll, nullptr, 0, nullptr, nullptr, 0);
}

}  // namespace

extern "C" int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t*, int fd, int as) noexcept {
  if (as == 3) g_far_end = Fd(::dup(fd));
  return 0;
}

extern "C" int posix_spawn(pid_t* pid, const char*, const posix_spawn_file_actions_t*,
                           const posix_spawnattr_t*, char* const[], char* const[]) {
  alignas(16) static char stack[1 << 14];
  *pid = g_worker = ::clone(sleep_for_ever, stack + sizeof stack, CLONE_VM | SIGCHLD, nullptr);
  check(g_worker > 0);
  g_spawned(std::move(g_far_end));
  return 0;
}

namespace {

// The decoder is never handed what is not in its vocabulary.
class CheckingDecoder : public FakeDecoder {
 public:
  CheckingDecoder() : FakeDecoder({.max_context = 64}) {}
  Status forward(std::span<const int32_t> ids, size_t position, std::span<float> logits) override {
    for (const int32_t id : ids) check(id >= 0 && id < info().vocab_size);
    return FakeDecoder::forward(ids, position, logits);
  }
};

// Each request is answered by the next line, in which an @ stands for the request's number. What a user does
// goes on until no line is left.
class Chat : private SessionView {
 public:
  Chat(const ChatOptions& options, std::deque<std::string> lines) : lines_(std::move(lines)) {
    g_spawned = [this](Fd far_end) {
      hang_up();
      requests_.clear();
      far_end_ = std::move(far_end);
      loop_.watch(far_end_.get(), EPOLLIN, [this](uint32_t) { answer_requests(); });
    };
    session_.emplace(
        loop_, options, [](auto&&...) { return std::make_unique<CheckingDecoder>(); },
        static_cast<SessionView&>(*this));
  }
  ~Chat() {
    session_.reset();
    hang_up();
  }

  void run() {
    check(session_->start().has_value());
    act();
    loop_.call_after(std::chrono::seconds(60), [] { check(false); });  // nobody waits for anybody
    loop_.run();
    session_->status();
    session_->stats();
  }

 private:
  void hang_up() {
    if (!far_end_) return;
    loop_.unwatch(far_end_.get());
    far_end_.reset();
  }

  void answer_requests() {
    char buffer[65536];
    const ssize_t n = ::recv(far_end_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (n <= 0) return hang_up();
    requests_.append(buffer, static_cast<size_t>(n));
    for (size_t end; far_end_ && (end = requests_.find('\n')) != std::string::npos;
         requests_.erase(0, end + 1)) {
      const auto request = parse_strict_json(requests_.substr(0, end));
      check(request.has_value());
      answer(*get_unsigned(*request, "id"));
    }
  }

  // Goes on until it said what ends the session's waiting.
  void answer(uint64_t id) {
    while (true) {
      if (lines_.empty()) return loop_.stop();
      std::string line = std::move(lines_.front());
      lines_.pop_front();
      if (line == "!") return die();
      for (size_t at; (at = line.find('@')) != std::string::npos;) line.replace(at, 1, std::to_string(id));
      line += '\n';
      ::send(far_end_.get(), line.data(), line.size(), MSG_NOSIGNAL);
      const auto said = parse_strict_json({line.data(), line.size() - 1});
      if (!said || !said->is_object() || get_unsigned(*said, "id") == id) return;
    }
  }

  void die() {
    ::kill(g_worker, SIGKILL);
    hang_up();
    requests_.clear();
  }

  void act() {
    if (lines_.empty()) return loop_.stop();
    switch (steps_++ % 4) {
      case 1:
        if (session_->regenerate()) return;
        break;
      case 2:
        session_->show_prompt();
        break;
      case 3:
        session_->submit("and stop");
        session_->stop_answer();
        return;
      default:
        break;
    }
    session_->submit("hello");
  }

  void state_changed(const Bootstrap& state) override {
    if (state.is<Bootstrap::Failed>() || state.is<Bootstrap::NotAvailable>())
      loop_.call_after({}, [this] { lines_.empty() || !session_->retry() ? loop_.stop() : void(); });
    if (state.is<Bootstrap::Ready>())
      loop_.call_after({}, [this] { session_->answering() ? void() : act(); });
  }
  void answer_begins(const std::string&, bool) override {
    check(!answering_);
    answering_ = true;
  }
  void answer_text(std::string_view text) override { check(answering_ && !text.empty()); }
  void answer_ends(const GenerationEnd& end) override {
    check(answering_ && (end.reason != StopReason::error || !end.error.empty()));
    answering_ = false;
    loop_.call_after({}, [this] { act(); });
  }
  void prompt_queued(const Bootstrap&) override {}
  void prompt_refused(std::string_view, const std::string&) override {}
  void warning(const std::string& text) override { check(!text.empty()); }
  void shown(const std::string& text) override { check(!text.empty()); }

  EventLoop loop_;
  std::deque<std::string> lines_;
  Fd far_end_;
  std::string requests_;
  std::optional<ChatSession> session_;
  bool answering_ = false;
  size_t steps_ = 0;
};

// A folder in which a model is found.
ChatOptions options() {
  static const std::string folder = [] {
    std::string path = "/tmp/bitctl-worker-fuzz-XXXXXX";
    check(::mkdtemp(path.data()) != nullptr);
    for (const char* name : {"/config.json", "/tokenizer.json", "/model.safetensors"})
      std::ofstream(path + name) << "{}";
    spdlog::set_level(spdlog::level::off);
    ::setenv("BITCTL_PYTHON", "/bin/true", 1);
    std::atexit([] { std::filesystem::remove_all(folder); });
    return path;
  }();
  ChatOptions options;
  options.model.path = folder;
  return options;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto lines = split({reinterpret_cast<const char*>(data), size}, '\n');
  Chat(options(), {lines.begin(), lines.end()}).run();
  return 0;
}
