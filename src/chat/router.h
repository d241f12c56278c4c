// Where a prompt goes: pure.
#pragma once

#include <string_view>

#include "chat/bootstrap.h"

namespace bitctl {

enum class Route {
  local,    // the model answers
  queue,    // it waits until the model is ready
  explain,  // it is not taken, and the reason is said
};

struct Routing {
  Route route;
  std::string_view reason = {};  // for machines: "model_not_ready", "load_failed", "offline"; of local: empty

  bool operator==(const Routing&) const = default;
};

Routing route_prompt(const Bootstrap& state, bool no_wait);

}  // namespace bitctl
