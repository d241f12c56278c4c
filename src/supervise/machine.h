// The life of a supervised run as one table: state × event → effect, next state. Pure; whoever holds it
// carries the effects out and feeds the next event.
#pragma once

#include <optional>
#include <span>
#include <string_view>

namespace bitctl {

enum class State {
  waiting,   // before an attempt: the first, or back-off
  starting,  // the attempt is being spawned
  running,
  stopping,    // asked to stop at the next step boundary
  restarting,  // asked to leave there, so that the next attempt can start
  killing,     // the tree is being killed
  deciding,    // nothing of the attempt is left; what next?
  draining,    // it is over; the newest snapshot goes to disk
  ended,
};

enum class Event {
  backoff_over,
  started,
  spawn_failed,
  leader_exited,
  hung,           // it gets on no more
  diverged,       // the loss is not finite, and that is to be undone
  violation,      // bitctl itself ends the attempt: it starts over, NaN, nothing to resume from
  stop_asked,     // Ctrl-C, SIGTERM, `bitctl stop`, limits.time
  stop_now,       // the same again
  restart_asked,  // `bitctl restart`
  restart_now,    // `bitctl restart --now`
  grace_over,
  tree_gone,
  unkillable,  // the tree does not die
  restart_due,
  run_over,
  drained,
};

enum class Effect {
  none,
  start_attempt,    // feeds started or spawn_failed
  request_stop,     // at the next step boundary; arms the grace
  request_restart,  // the same, and the next attempt follows at once
  kill_tree,        // feeds tree_gone or unkillable
  note_stop,        // remembered for the decision
  decide,           // feeds restart_due or run_over
  begin_backoff,    // feeds backoff_over
  stop_waiting,     // a stop that met no trainer; feeds nothing
  drain,            // feeds drained
  finish,           // the last words
};

struct Transition {
  State state;
  Event event;
  Effect effect;
  State next;
};

std::span<const Transition> transitions();

// Nothing where the event means nothing in that state; it is then ignored.
std::optional<Transition> transition(State state, Event event);

std::string_view name_of(State state);
std::string_view name_of(Event event);

}  // namespace bitctl
