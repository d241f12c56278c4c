// A process that goes on by itself when the command that started it has ended.
#pragma once

#include <functional>
#include <string>

namespace bitctl {

// To be called once the work is under way: from here on nothing ties it to the foreground (its stdio is
// /dev/null, and it outlives whoever waits). `word` is for the foreground.
using LetGo = std::function<void(const std::string& word)>;

// Runs `work` in a child, in a session of its own, with our stdio until it lets go and no other
// descriptor of ours. In the child it returns
// what `work` returned. Here it waits until the child lets go, and returns what `on_let_go` makes of its pid
// and word; a child that ends before hands its exit code through. If we die while waiting, so does the child.
// Call it before any thread exists.
int run_in_background(const std::function<int(const LetGo& let_go)>& work,
                      const std::function<int(pid_t pid, const std::string& word)>& on_let_go);

}  // namespace bitctl
