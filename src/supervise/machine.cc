#include "supervise/machine.h"

namespace bitctl {
namespace {

using enum State;
using enum Event;

constexpr Transition kTransitions[] = {
    {waiting, backoff_over, Effect::start_attempt, starting},
    {waiting, stop_asked, Effect::stop_waiting, draining},
    {waiting, stop_now, Effect::stop_waiting, draining},
    {waiting, restart_asked, Effect::start_attempt, starting},
    {waiting, restart_now, Effect::start_attempt, starting},

    {starting, started, Effect::none, running},
    {starting, spawn_failed, Effect::decide, deciding},

    {running, leader_exited, Effect::kill_tree, killing},
    {running, hung, Effect::kill_tree, killing},
    {running, diverged, Effect::kill_tree, killing},
    {running, violation, Effect::kill_tree, killing},
    {running, stop_asked, Effect::request_stop, stopping},
    {running, stop_now, Effect::kill_tree, killing},
    {running, restart_asked, Effect::request_restart, restarting},
    {running, restart_now, Effect::kill_tree, killing},

    {stopping, leader_exited, Effect::kill_tree, killing},
    {stopping, violation, Effect::kill_tree, killing},
    {stopping, stop_asked, Effect::kill_tree, killing},
    {stopping, stop_now, Effect::kill_tree, killing},
    {stopping, grace_over, Effect::kill_tree, killing},

    {restarting, leader_exited, Effect::kill_tree, killing},
    {restarting, violation, Effect::kill_tree, killing},
    // It leaves at the same boundary, and no other attempt follows.
    {restarting, stop_asked, Effect::note_stop, stopping},
    {restarting, stop_now, Effect::kill_tree, killing},
    {restarting, restart_now, Effect::kill_tree, killing},
    {restarting, grace_over, Effect::kill_tree, killing},

    {killing, tree_gone, Effect::decide, deciding},
    {killing, unkillable, Effect::decide, deciding},
    {killing, stop_asked, Effect::note_stop, killing},
    {killing, stop_now, Effect::note_stop, killing},

    {deciding, restart_due, Effect::begin_backoff, waiting},
    {deciding, run_over, Effect::drain, draining},

    {draining, drained, Effect::finish, ended},
    // The writer stays until the snapshot is on disk, also without us.
    {draining, stop_now, Effect::finish, ended},
};

}  // namespace

std::span<const Transition> transitions() { return kTransitions; }

std::optional<Transition> transition(State state, Event event) {
  for (const Transition& t : kTransitions)
    if (t.state == state && t.event == event) return t;
  return std::nullopt;
}

std::string_view name_of(State state) {
  switch (state) {
    case waiting:
      return "waiting";
    case starting:
      return "starting";
    case running:
      return "running";
    case stopping:
      return "stopping";
    case restarting:
      return "restarting";
    case killing:
      return "killing";
    case deciding:
      return "deciding";
    case draining:
      return "draining";
    case ended:
      return "ended";
  }
  return "?";
}

std::string_view name_of(Event event) {
  switch (event) {
    case backoff_over:
      return "backoff_over";
    case started:
      return "started";
    case spawn_failed:
      return "spawn_failed";
    case leader_exited:
      return "leader_exited";
    case hung:
      return "hung";
    case diverged:
      return "diverged";
    case violation:
      return "violation";
    case stop_asked:
      return "stop_asked";
    case stop_now:
      return "stop_now";
    case restart_asked:
      return "restart_asked";
    case restart_now:
      return "restart_now";
    case grace_over:
      return "grace_over";
    case tree_gone:
      return "tree_gone";
    case unkillable:
      return "unkillable";
    case restart_due:
      return "restart_due";
    case run_over:
      return "run_over";
    case drained:
      return "drained";
  }
  return "?";
}

}  // namespace bitctl
