#include "run/advice.h"

#include <fmt/format.h>

#include <initializer_list>

#include "base/text.h"

namespace bitctl {
namespace {

bool holds(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

bool is_one_of(const std::string& text, std::initializer_list<std::string_view> words) {
  for (const std::string_view word : words)
    if (text == word) return true;
  return false;
}

// The name between the first quotes: No module named 'numpy'
std::string quoted_name(const std::string& text) {
  const size_t begin = text.find('\'');
  const size_t end = begin == std::string::npos ? begin : text.find('\'', begin + 1);
  return end == std::string::npos ? "it" : text.substr(begin + 1, end - begin - 1);
}

std::string memory_advice(const AttemptStory& failure) {
  std::string text =
      "a smaller batch (gradient accumulation keeps the effective size), shorter sequences, or "
      "gradient checkpointing";
  const std::string took = describe(failure.memory);
  return took.empty() ? text : text + "; it took " + took;
}

constexpr const char* kAgainstNaN = "a lower learning rate, gradient clipping, or data without such items";

std::string of_violation(const std::string& reason, const RunContext& around) {
  if (holds(reason, "loss is "))
    return "a lower learning rate, gradient clipping, or `watchdog: {nan: rollback}`, which goes back to "
           "before it";
  if (holds(reason, "starts over"))
    return "begin the loop where the checkpoint ends: start = run.restore(…); for step in range(start + 1, "
           "…)";
  if (holds(reason, "skips")) return "report each step once, in order, by run.progress(step=…)";
  if (holds(reason, "does not fit"))
    return "give the model the shape that the checkpoint has, or begin a new run with bitctl train";
  if (holds(reason, "verifies"))
    return fmt::format("`bitctl checkpoints verify --deep {}` names what is damaged", around.id);
  if (holds(reason, "cannot be killed"))
    return "the kernel holds them (a disk, a GPU, a network file system): the machine may need a restart";
  return {};
}

std::string of_exception(const Traceback& told, const AttemptStory& failure, const RunContext& around) {
  if (holds(told.exception, "No space left on device"))
    return "the disk is full: make room (`bitctl prune` removes old runs)";
  if (is_one_of(told.exception_type, {"MemoryError", "OutOfMemoryError", "torch.OutOfMemoryError",
                                      "torch.cuda.OutOfMemoryError"}) ||
      holds(told.exception, "CUDA out of memory"))
    return memory_advice(failure);
  if (told.exception_type == "ModuleNotFoundError") {
    const std::string module = quoted_name(told.exception);
    return fmt::format(
        "{} ran it, and has no module {}: `{} -m pip install {}`, or name another Python (run.python)",
        around.program, module, around.program, split(module, '.').front());
  }
  if (told.exception_type == "FileNotFoundError" && !around.workdir.empty())
    return fmt::format("relative paths begin in {} (workdir)", around.workdir);
  if (is_one_of(told.exception_type, {"SyntaxError", "IndentationError", "TabError"}))
    return "the script itself is no Python: correct the line that the log names";
  return {};
}

std::string of_signal(const AttemptStory& failure) {
  if (failure.signal == "SIGBUS")
    return "shared memory may be full: `df -h /dev/shm`; DataLoader workers use it";
  if (is_one_of(failure.signal, {"SIGSEGV", "SIGILL", "SIGFPE", "SIGABRT"}))
    return "native code crashed: `run: {env: {PYTHONFAULTHANDLER: \"1\"}}` puts the Python stack into the "
           "log; look "
           "at extensions that were built for another version";
  if (failure.signal == "SIGKILL")
    return "whoever sent it left no word: the kernel out of memory (see dmesg), a scheduler, or kill -9";
  if (!failure.signal.empty())
    return "somebody outside sent it, a scheduler perhaps; `bitctl stop` ends a run with a checkpoint";
  return {};
}

std::string of_exit_code(const AttemptStory& failure) {
  if (!failure.spawn_failure.empty())
    return holds(failure.spawn_failure, "not found") || holds(failure.spawn_failure, "no such folder")
               ? "look at its spelling, at PATH and at workdir; `bitctl train --dry-run` shows what is "
                 "started"
               : "make it executable (chmod +x), or name the interpreter that runs it";
  if (failure.code == 2)
    return "exit code 2 is a refused command line: the log says which argument (run.args)";
  return {};
}

}  // namespace

std::vector<std::string> advice(const Story& story, const AttemptStory& failure, const Traceback& told,
                                const RunContext& around) {
  std::vector<std::string> next;
  const auto add = [&](std::string text) {
    if (!text.empty()) next.push_back(std::move(text));
  };
  if (story.disk_full)
    add("the disk is full: make room (`bitctl prune` removes old runs), or keep less "
        "(checkpoints.keep_last)");
  if (failure.ran_out_of_memory()) {
    add(memory_advice(failure));
  } else if (failure.non_finite_step) {
    add(kAgainstNaN);
    if (holds(story.failure, "again"))
      add("give run.restore() the position in the data (data=…), so that a roll back can pass over it");
  } else if (!failure.violation.empty()) {
    add(of_violation(failure.violation, around));
  } else if (failure.hang) {
    add(failure.stacks
            ? "the stacks of its threads stand in events.jsonl (kind stacks) and say where it waited"
            : "its log is the only witness");
    add("if that was honest work: a longer watchdog.stall, or `with run.busy(\"…\"):` around it");
  } else if (!told.exception.empty()) {
    add(of_exception(told, failure, around));
  } else if (!failure.signal.empty()) {
    add(of_signal(failure));
  } else {
    add(of_exit_code(failure));
  }
  if (failure.step && holds(story.failure, "without a new checkpoint"))
    add("no checkpoint came between the failures: save more often (checkpoints.every: 1m)");
  if (holds(story.failure, "the same failure twice"))
    add(fmt::format("it fails in the same way each time: look at {}",
                    told.frame.empty() ? around.log : told.frame));
  if (next.empty()) add(fmt::format("read what it wrote: bitctl logs {}", around.id));
  return next;
}

std::string resume_advice(const Story& story, const RunContext& around) {
  if (story.checkpoint_step)
    return fmt::format("`bitctl resume {}` goes on from step {}", around.id, *story.checkpoint_step);
  return fmt::format("`bitctl resume {}` begins again: there is no checkpoint yet", around.id);
}

}  // namespace bitctl
