// Where a prompt goes: pure.
#pragma once

#include <string>
#include <string_view>

#include "chat/bootstrap.h"

namespace bitctl {

enum class Route {
  local,    // the model answers
  queue,    // it waits until the model is ready
  forward,  // the remote answers, because the model is not ready
  explain,  // it is not taken, and the reason is said
};

struct Routing {
  Route route;
  std::string_view reason = {};  // for machines: "model_not_ready", "load_failed", "offline"; of local: empty

  bool operator==(const Routing&) const = default;
};

// `remote`: there is one that the user configured, and it has not failed.
Routing route_prompt(const Bootstrap& state, bool no_wait, bool remote);

// "[model_not_ready: big at https://host/v1 answers]": who does, for people.
std::string forwarded_text(std::string_view reason, std::string_view model, std::string_view url);

}  // namespace bitctl
