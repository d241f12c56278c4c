// `bitctl chat`, from its options to its exit code.
#pragma once

#include "base/clock.h"
#include "chat/options.h"

namespace bitctl {

// On a terminal a conversation, else (or with options.prompt) one answer. `started` is when the program
// began. Does not return where a thread is in the middle of loading or answering: it ends the process with
// the exit code then.
int run_chat(const ChatOptions& options, ModelOpener opener, Mono started);

}  // namespace bitctl
