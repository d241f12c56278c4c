#include "decode/engine_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

#include "base/visible_text.h"

namespace bitctl {
namespace {

constexpr size_t kKeptOutput = 4096;
constexpr size_t kToldBytes = 200;
constexpr int kGoOnMs = 100;
constexpr int kEndMs = 5000;  // that an interpreter may take to leave after its last word

struct Pipe {
  Fd reader, writer;
};

Result<Pipe> open_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno("pipe");
  return Pipe{Fd(ends[0]), Fd(ends[1])};
}

// One read's result.
ssize_t read_some(int fd, std::string& into) {
  std::array<char, 65536> buffer;
  const ssize_t n = ::read(fd, buffer.data(), buffer.size());
  if (n > 0) into.append(buffer.data(), static_cast<size_t>(n));
  return n;
}

}  // namespace

Result<std::unique_ptr<EngineProcess>> EngineProcess::start(WorkerCommand command,
                                                            const std::vector<File>& files) {
  std::array<int, 2> sockets{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0)
    return fail_errno("socketpair");
  Fd ours(sockets[0]), theirs(sockets[1]);
  auto output = open_pipe(), lifeline = open_pipe();
  if (!output) return forward(std::move(output));
  if (!lifeline) return forward(std::move(lifeline));
  WorkerFds fds{lifeline->reader.get(), output->writer.get(), {}};
  const auto pass = [&](const std::string& name, int fd) {
    command.argv.push_back(fmt::format("{}={}", name, kFirstWorkerFd + static_cast<int>(fds.passed.size())));
    fds.passed.push_back(fd);
  };
  pass("socket", theirs.get());
  for (const File& file : files) pass(file.name, file.fd);
  const auto pid = spawn_worker(command, fds);
  if (!pid) return tl::unexpected(pid.error());
  std::unique_ptr<EngineProcess> engine(new EngineProcess);
  engine->process_ = Fd(static_cast<int>(::syscall(SYS_pidfd_open, *pid, 0)));
  if (!engine->process_) return fail_errno("pidfd_open");
  engine->socket_ = std::move(ours);
  engine->output_ = std::move(output->reader);
  ::fcntl(engine->output_.get(), F_SETFL, O_NONBLOCK);
  engine->lifeline_ = std::move(lifeline->writer);
  return engine;
}

Result<Json> EngineProcess::ask(const Json& request, std::span<char> data, const GoOn& go_on) {
  if (!running()) return fail(ErrorKind::io, end_);
  const std::string line = dump_line(request) + "\n";
  for (size_t sent = 0; sent < line.size();) {
    const ssize_t n = ::send(socket_.get(), line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EINTR) return ended();
    sent += static_cast<size_t>(std::max<ssize_t>(n, 0));
  }
  auto reply = take_line(go_on);
  if (!reply) return reply;
  const auto bytes = get_unsigned(*reply, "bytes").value_or(0);
  if (reply->contains("fatal")) return end_with(get_text(*reply, "fatal", "unknown"));
  if (reply->contains("error")) return fail(ErrorKind::invalid, get_text(*reply, "error", "unknown"));
  if (bytes != data.size())
    return end_with(fmt::format("the engine's reply has {} bytes, not {}", bytes, data.size()));
  if (!take_bytes(data)) return ended();
  return reply;
}

bool EngineProcess::wait(const GoOn& go_on) {
  std::array<pollfd, 2> fds{{{socket_.get(), POLLIN, 0}, {output_.get(), POLLIN, 0}}};
  if (::poll(fds.data(), fds.size(), go_on ? kGoOnMs : -1) < 0) return errno == EINTR;
  if (fds[1].revents != 0 && read_some(output_.get(), last_output_) == 0) output_.reset();
  if (last_output_.size() > kKeptOutput) last_output_.erase(0, last_output_.size() - kKeptOutput);
  return fds[0].revents == 0 || read_some(socket_.get(), received_) > 0;
}

Result<Json> EngineProcess::take_line(const GoOn& go_on) {
  size_t end = std::string::npos;
  while ((end = received_.find('\n')) == std::string::npos) {
    if (go_on && !go_on()) return end_with("stopped");
    if (!wait(go_on)) return ended();
  }
  const std::string line = received_.substr(0, end);
  received_.erase(0, end + 1);
  auto reply = parse_strict_json(line);
  if (!reply || !reply->is_object())
    return end_with("the engine said what is no reply: " + shortened(visible_text(line), kToldBytes));
  return std::move(*reply);
}

bool EngineProcess::take_bytes(std::span<char> data) {
  const size_t here = std::min(received_.size(), data.size());
  std::copy_n(received_.begin(), here, data.begin());
  received_.erase(0, here);
  for (size_t at = here; at < data.size();) {
    const ssize_t n = ::recv(socket_.get(), &data[at], data.size() - at, MSG_WAITALL);
    if (n == 0 || (n < 0 && errno != EINTR)) return false;
    at += static_cast<size_t>(std::max<ssize_t>(n, 0));
  }
  return true;
}

// The socket is closed: the child ends, or is about to.
tl::unexpected<Error> EngineProcess::ended() {
  pollfd leaving{process_.get(), POLLIN, 0};
  ::poll(&leaving, 1, kEndMs);
  while (output_ && read_some(output_.get(), last_output_) > 0) {
  }
  siginfo_t info{};
  ::waitid(P_PIDFD, static_cast<id_t>(process_.get()), &info, WEXITED | WNOWAIT | WNOHANG);
  const int status = info.si_pid == 0             ? -SIGKILL
                     : info.si_code == CLD_EXITED ? info.si_status
                                                  : -info.si_status;
  return end_with(worker_end("the transformers engine", status, last_output_));
}

tl::unexpected<Error> EngineProcess::end_with(std::string reason) {
  end();
  end_ = std::move(reason);
  return fail(ErrorKind::io, end_);
}

void EngineProcess::end() {
  if (!process_) return;
  ::syscall(SYS_pidfd_send_signal, process_.get(), SIGKILL, nullptr, 0);
  siginfo_t info{};
  ::waitid(P_PIDFD, static_cast<id_t>(process_.get()), &info, WEXITED);
  for (Fd* fd : {&process_, &socket_, &output_, &lifeline_}) fd->reset();
}

}  // namespace bitctl
