#include "chat/chat.h"

#include <unistd.h>

#include "base/log.h"
#include "chat/one_shot.h"
#include "chat/repl.h"
#include "chat/terminal.h"

namespace bitctl {
namespace {

template <typename Chat>
int run_and_end(Chat& chat) {
  const int code = chat.run();
  if (chat.busy()) {
    // Loading a library or a token cannot be cancelled, and nobody is to wait for it. Nothing is left to be
    // undone but the text worker.
    chat.end_worker();
    flush_log();
    ::_exit(code);
  }
  return code;
}

}  // namespace

int run_chat(const ChatOptions& options, ModelOpener opener, Mono started) {
  if (!options.prompt && Terminal::is_there()) {
    Repl repl(options, std::move(opener), started);
    return run_and_end(repl);
  }
  OneShot one(options, std::move(opener));
  return run_and_end(one);
}

}  // namespace bitctl
