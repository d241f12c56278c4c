// Is the trainer in a state that PULSE may vouch for? While the answer is yes, the supervisor re-stamps the
// file.
#pragma once

namespace bitctl {

struct Observation {
  bool leader_alive = false;
  char leader_state = 0;  // letter of /proc/<pid>/stat; 0 where it could not be read
};

// A process that is gone, a zombie, or stopped by a signal is not healthy.
inline bool is_healthy(const Observation& o) {
  return o.leader_alive && o.leader_state != 0 && o.leader_state != 'T' && o.leader_state != 't' &&
         o.leader_state != 'Z' && o.leader_state != 'X';
}

}  // namespace bitctl
