// The trainer's end of the supervisor's socket. Errors are thrown: Closed where the supervisor is gone,
// std::runtime_error for the rest.
#pragma once

#include <deque>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/strict_json.h"

namespace bitctl::trainer {

struct Closed : std::runtime_error {
  Closed() : std::runtime_error("the supervisor is gone") {}
};

class Link {
 public:
  using Received = std::pair<Json, std::vector<Fd>>;

  explicit Link(const std::string& path);

  // Never waits; false where the supervisor does not read at the moment.
  bool send(const Json& message);
  // For the few messages that must not be lost.
  void send_patiently(const Json& message);
  // What is there; never waits.
  std::vector<Received> poll();
  // The next message of one of these types, however long it takes; others are kept for poll().
  Received wait_for(std::initializer_list<std::string_view> types);

 private:
  std::optional<Received> receive(int timeout_ms);

  Fd socket_;
  std::deque<Received> kept_;
};

}  // namespace bitctl::trainer
