#include "supervise/trainer_server.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/install_layout.h"
#include "base/replace_file.h"

namespace bitctl {
namespace {

constexpr size_t kMaxConnections = 256;
constexpr int kMaxUnread = 4096;

// A folder that only we can enter; one that stands there with another owner or mode is a trap.
Status private_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno("cannot create " + path);
  struct stat st {};
  if (::lstat(path.c_str(), &st) != 0) return fail_errno(path);
  if (!S_ISDIR(st.st_mode) || st.st_uid != ::geteuid())
    return fail(ErrorKind::invalid, path + " is not a folder of this user");
  if ((st.st_mode & 0077) != 0 && ::chmod(path.c_str(), 0700) != 0)
    return fail_errno("cannot make private: " + path);
  return {};
}

}  // namespace

TrainerServer::~TrainerServer() {
  for (auto& [id, connection] : connections_) loop_.unwatch(connection.fd.get());
  if (listener_) {
    loop_.unwatch(listener_.get());
    ::unlink(path_.c_str());
    ::rmdir(folder_.c_str());
  }
}

Status TrainerServer::listen(const std::string& run_id) {
  const std::string home = runtime_home();
  if (auto status = private_folder(home); !status) return status;
  // Long run names must not make the path longer than a socket's may be.
  folder_ = fmt::format("{}/{}-{}", home, run_id.substr(0, 40), random_hex8());
  if (auto status = private_folder(folder_); !status) return status;
  path_ = folder_ + "/socket";
  auto listener = seqpacket_listen(path_);
  if (!listener) return forward(std::move(listener));
  listener_ = std::move(*listener);
  loop_.watch(listener_.get(), EPOLLIN, [this](uint32_t) { accept(); });
  return {};
}

void TrainerServer::expect(int attempt, const std::string& token) {
  attempt_ = attempt;
  token_ = token;
  std::vector<int> old;
  for (const auto& [id, connection] : connections_)
    if (!connection.known || connection.client.hello.role == "trainer") old.push_back(id);
  for (const int id : old) drop(id);
}

void TrainerServer::accept() {
  auto fd = seqpacket_accept(listener_.get());
  if (!fd || connections_.size() >= kMaxConnections) return;
  const auto peer = peer_of(fd->get());
  if (!peer || peer->uid != ::geteuid()) {
    spdlog::warn("a connection of user {} refused", peer ? static_cast<long>(peer->uid) : -1L);
    return;
  }
  const int id = next_id_++;
  Connection connection;
  connection.peer = *peer;
  connection.client.id = id;
  loop_.watch(fd->get(), EPOLLIN, [this, id](uint32_t) { receive(id); });
  connection.fd = std::move(*fd);
  connections_[id] = std::move(connection);
}

bool TrainerServer::receive(int id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return false;
  Connection& connection = found->second;
  auto message = receive_message(connection.fd.get());
  if (!message && message.error().kind == ErrorKind::timeout) return false;
  if (!message || message->closed()) {
    drop(id);
    return false;
  }
  const auto json = message_from(message->bytes);
  if (!json)
    spdlog::warn("pid {}: {}", connection.peer.pid, json.error().message);
  else if (!connection.known)
    greet(connection, *json);
  else if (!message->fds.empty())
    callbacks_.on_handed(connection.client, *json, std::move(message->fds));
  else
    callbacks_.on_message(connection.client, *json);
  return true;
}

void TrainerServer::read_everything() {
  std::vector<int> ids;
  for (const auto& [id, connection] : connections_) ids.push_back(id);
  // Bounded: one that lives on may talk for ever.
  for (const int id : ids)
    for (int i = 0; i < kMaxUnread && receive(id); ++i) {
    }
}

void TrainerServer::greet(Connection& connection, const Json& message) {
  const int id = connection.client.id;
  const auto hello =
      get_text(message, "type") == "hello" ? hello_from(message) : fail(ErrorKind::invalid, "no hello");
  if (!hello) return refuse(id, hello.error().message);
  if (hello->protocol != kTrainerProtocol)
    return refuse(id, fmt::format("protocol {} is not spoken here", hello->protocol));
  if (hello->role == "trainer") {
    if (hello->token != token_ || hello->attempt != attempt_)
      return refuse(id, "not the trainer of this attempt");
    for (const auto& [other, existing] : connections_)
      if (existing.known && existing.client.hello.role == "trainer" &&
          existing.client.hello.rank == hello->rank)
        return refuse(id, fmt::format("rank {} is connected already", hello->rank));
  } else if (hello->role != "control") {
    return refuse(id, "unknown role");
  }
  connection.known = true;
  connection.client.hello = *hello;
  // The kernel knows the pid better than the peer does.
  connection.client.hello.pid = connection.peer.pid;
  callbacks_.on_hello(connection.client);
}

void TrainerServer::refuse(int id, const std::string& reason) {
  const auto found = connections_.find(id);
  spdlog::info("pid {} refused: {}", found->second.peer.pid, reason);
  send(id, {{"type", "refused"}, {"reason", reason}});
  drop(id);
}

void TrainerServer::drop(int id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  loop_.unwatch(found->second.fd.get());
  const Connection gone = std::move(found->second);
  connections_.erase(found);
  if (gone.known) callbacks_.on_gone(gone.client);
}

void TrainerServer::send(int client, const Json& message, const std::vector<int>& fds) {
  const auto found = connections_.find(client);
  if (found == connections_.end()) return;
  if (auto status = send_message(found->second.fd.get(), dump_line(message), fds); !status)
    spdlog::warn("pid {}: {} not delivered: {}", found->second.peer.pid, get_text(message, "type"),
                 status.error().message);
}

std::vector<TrainerServer::Client> TrainerServer::trainers() const {
  std::vector<Client> clients;
  for (const auto& [id, connection] : connections_)
    if (connection.known && connection.client.hello.role == "trainer") clients.push_back(connection.client);
  return clients;
}

int TrainerServer::trainer_of(int rank) const {
  for (const Client& client : trainers())
    if (client.hello.rank == rank) return client.id;
  return 0;
}

int TrainerServer::highest_world_size() const {
  int size = 1;
  for (const Client& client : trainers()) size = std::max(size, client.hello.world_size);
  return size;
}

}  // namespace bitctl
