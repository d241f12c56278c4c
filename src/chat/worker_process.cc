#include "chat/worker_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/text.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

constexpr size_t kKeptOutput = 4096;
constexpr size_t kToldBytes = 200;

// Everything that the read gives at once; false at the end of the stream.
bool read_available(int fd, std::string& into) {
  std::array<char, 65536> buffer;
  while (true) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n > 0)
      into.append(buffer.data(), static_cast<size_t>(n));
    else if (n == 0)
      return false;
    else if (errno != EINTR)
      return errno == EAGAIN;
  }
}

}  // namespace

std::vector<int32_t> token_ids(const Json& reply, std::string_view key) {
  std::vector<int32_t> ids;
  const auto list = reply.find(key);
  if (list == reply.end() || !list->is_array()) return ids;
  for (const auto& id : *list)
    ids.push_back(id.is_number_integer()
                      ? static_cast<int32_t>(std::clamp<int64_t>(id.get<int64_t>(), -1, INT32_MAX))
                      : -1);
  return ids;
}

Status WorkerProcess::start(WorkerCommand command) {
  end();
  command.argv.push_back(std::to_string(kFirstWorkerFd));
  std::array<int, 2> sockets{}, pipe{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0)
    return fail_errno("socketpair");
  Fd ours(sockets[0]), theirs(sockets[1]);
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return fail_errno("pipe");
  Fd output(pipe[0]), output_writer(pipe[1]);
  auto pid = spawn_worker(command, {.output = output_writer.get(), .passed = {theirs.get()}});
  if (!pid) return forward(std::move(pid));
  Fd process(static_cast<int>(::syscall(SYS_pidfd_open, *pid, 0)));
  if (!process) return fail_errno("pidfd_open");
  ::fcntl(ours.get(), F_SETFL, O_NONBLOCK);
  ::fcntl(output.get(), F_SETFL, O_NONBLOCK);

  process_ = std::move(process);
  socket_ = std::move(ours);
  output_ = std::move(output);
  watch_socket();
  loop_.watch(output_.get(), EPOLLIN, [this](uint32_t) { read_output(); });
  loop_.watch(process_.get(), EPOLLIN, [this](uint32_t) { reap(); });
  return {};
}

void WorkerProcess::end() {
  if (!process_) return;
  for (const Fd* fd : {&process_, &socket_, &output_}) loop_.unwatch(fd->get());
  ::syscall(SYS_pidfd_send_signal, process_.get(), SIGKILL, nullptr, 0);
  siginfo_t info{};
  ::waitid(P_PIDFD, static_cast<id_t>(process_.get()), &info, WEXITED);
  process_.reset();
  socket_.reset();
  output_.reset();
  for (std::string* text : {&received_, &unsent_, &last_output_, &fatal_}) text->clear();
  waiting_.clear();
}

void WorkerProcess::ask(Json request, Reply reply) {
  const uint64_t id = next_id_++;
  waiting_[id] = std::move(reply);
  request["id"] = id;
  unsent_ += dump_line(request) + "\n";
  send();
}

void WorkerProcess::watch_socket() {
  loop_.watch(socket_.get(), unsent_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT, [this](uint32_t events) {
    if (events & EPOLLOUT) send();
    read_replies();
  });
}

void WorkerProcess::send() {
  const ssize_t n = ::send(socket_.get(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n > 0) unsent_.erase(0, static_cast<size_t>(n));
  watch_socket();  // what is left goes when there is room; a worker that is gone is reap()'s matter
}

void WorkerProcess::read_replies() {
  const bool open = read_available(socket_.get(), received_);
  // A reply's callback may ask again, or end this worker; then `received_` is empty.
  for (size_t end = received_.find('\n'); end != std::string::npos; end = received_.find('\n')) {
    const std::string line = received_.substr(0, end);
    received_.erase(0, end + 1);
    take_line(line);
  }
  if (!open && socket_) loop_.unwatch(socket_.get());
}

void WorkerProcess::take_line(const std::string& line) {
  auto parsed = parse_strict_json(line);
  // Whose reply it was cannot be known, and somebody would wait for it for ever.
  if (!parsed || !parsed->is_object())
    return die(name_ + " said what is no reply: " + shortened(visible_text(line), kToldBytes));
  Json& answer = *parsed;
  if (answer.contains("fatal") && answer["fatal"].is_string()) fatal_ = answer["fatal"];
  const auto waiting = answer.contains("id") && answer["id"].is_number_unsigned()
                           ? waiting_.find(answer["id"].get<uint64_t>())
                           : waiting_.end();
  if (waiting == waiting_.end()) return;
  const Reply reply = waiting->second;
  if (!answer.value("more", Json()).is_boolean() || !answer["more"]) waiting_.erase(waiting);
  if (answer.contains("error"))
    reply(fail(ErrorKind::invalid,
               answer["error"].is_string() ? answer["error"].get<std::string>() : "unknown"));
  else
    reply(std::move(answer));
}

void WorkerProcess::read_output() {
  if (!read_available(output_.get(), last_output_)) loop_.unwatch(output_.get());
  if (last_output_.size() > kKeptOutput) last_output_.erase(0, last_output_.size() - kKeptOutput);
}

void WorkerProcess::reap() {
  read_replies();
  if (!process_) return;  // a reply ended it
  read_output();
  siginfo_t info{};
  ::waitid(P_PIDFD, static_cast<id_t>(process_.get()), &info, WEXITED | WNOWAIT);
  die(reason_of_death(info.si_code == CLD_EXITED ? info.si_status : -info.si_status));
}

void WorkerProcess::die(const std::string& reason) {
  end();
  on_death_(reason);
}

std::string WorkerProcess::reason_of_death(int status) const {
  return fatal_.empty() ? worker_end(name_, status, last_output_) : fatal_;
}

}  // namespace bitctl
