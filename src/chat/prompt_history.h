// The prompts of this user, across chats: $XDG_STATE_HOME/bitctl/chat_history.jsonl, readable by its owner
// only. Many chats may write at once.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace bitctl {

class PromptHistory {
 public:
  // Empty: nothing is kept, as where the user has no home.
  explicit PromptHistory(std::string path) : path_(std::move(path)) {}

  // Oldest first, at most the last kKept. A line that is none is left out: this is no reason not to chat. A
  // file that has grown large is made short again.
  std::vector<std::string> read() const;
  // May wait for another chat's short write.
  Status add(std::string_view prompt) const;

  static constexpr size_t kKept = 1000;
  static constexpr size_t kLargeBytes = size_t{4} << 20;

 private:
  std::vector<std::string> read_file(size_t& bytes) const;
  void shorten() const;

  std::string path_;
};

std::string prompt_history_path();

}  // namespace bitctl
