#include "chat/chat.h"

#include <unistd.h>

#include "base/log.h"
#include "chat/line_chat.h"
#include "chat/one_shot.h"
#include "chat/repl.h"
#include "chat/terminal.h"
#include "launch/neighbours.h"

namespace bitctl {
namespace {

template <typename Chat>
int run_and_end(Chat& chat, SelfGivesWay& beside_a_training) {
  const int code = chat.run();
  if (chat.busy()) {
    // Loading a library or a token cannot be cancelled, and nobody is to wait for it. Nothing is left to be
    // undone but the workers.
    chat.end_workers();
    beside_a_training.end();
    flush_log();
    ::_exit(code);
  }
  return code;
}

}  // namespace

int run_chat(const ChatOptions& options, ModelOpener opener, Mono started) {
  SelfGivesWay beside_a_training(options.nice);
  if (options.input != ChatInput::prompt) {
    LineChat lines(options, std::move(opener));
    return run_and_end(lines, beside_a_training);
  }
  if (!options.prompt && Terminal::is_there()) {
    ChatOptions kept = options;
    kept.keep_transcript = true;
    Repl repl(kept, std::move(opener), started);
    return run_and_end(repl, beside_a_training);
  }
  OneShot one(options, std::move(opener));
  return run_and_end(one, beside_a_training);
}

}  // namespace bitctl
