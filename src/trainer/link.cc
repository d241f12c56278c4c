#include "trainer/link.h"

#include <poll.h>

#include <algorithm>

#include "base/seqpacket.h"

namespace bitctl::trainer {

Link::Link(const std::string& path) {
  auto connected = seqpacket_connect(path);
  if (!connected) throw std::runtime_error(connected.error().message);
  socket_ = std::move(*connected);
}

bool Link::send(const Json& message) {
  const auto sent = send_message(socket_.get(), dump_line(message));
  if (sent) return true;
  if (sent.error().kind == ErrorKind::timeout) return false;
  if (sent.error().kind == ErrorKind::io) throw Closed();
  throw std::runtime_error(sent.error().message);
}

void Link::send_patiently(const Json& message) {
  while (!send(message)) {
    pollfd writable{socket_.get(), POLLOUT, 0};
    ::poll(&writable, 1, 1000);
  }
}

std::optional<Link::Received> Link::receive(int timeout_ms) {
  auto message = await_message(socket_.get(), timeout_ms);
  if (!message && message.error().kind == ErrorKind::timeout) return std::nullopt;
  if (!message || message->closed()) throw Closed();
  auto json = parse_strict_json(message->bytes);
  if (!json || !json->is_object()) throw std::runtime_error("a message that is no JSON object");
  return Received(std::move(*json), std::move(message->fds));
}

std::vector<Link::Received> Link::poll() {
  std::vector<Received> received;
  for (Received& message : kept_) received.push_back(std::move(message));
  kept_.clear();
  while (auto message = receive(0)) received.push_back(std::move(*message));
  return received;
}

Link::Received Link::wait_for(std::initializer_list<std::string_view> types) {
  const auto is_wanted = [&](const Received& message) {
    return std::find(types.begin(), types.end(), get_text(message.first, "type")) != types.end();
  };
  if (const auto found = std::find_if(kept_.begin(), kept_.end(), is_wanted); found != kept_.end()) {
    Received message = std::move(*found);
    kept_.erase(found);
    return message;
  }
  while (true) {
    auto message = receive(-1);
    if (!message) continue;
    if (is_wanted(*message)) return std::move(*message);
    kept_.push_back(std::move(*message));
  }
}

}  // namespace bitctl::trainer
