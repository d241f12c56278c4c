// Conversations on disk: $XDG_STATE_HOME/bitctl/chats/<time>-<model>.jsonl, readable by their owner only.
// Records are appended, one line each, and never changed; reading them in order gives the conversation
// (schemas/transcript.v1.schema.json).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/result.h"
#include "base/strict_json.h"

namespace bitctl {

struct ChatMessage {
  std::string role;  // "user" or "assistant"
  std::string content;

  bool operator==(const ChatMessage&) const = default;
};

struct Conversation {
  std::string system;
  std::vector<ChatMessage> messages;  // in pairs: a prompt and its answer

  bool operator==(const Conversation&) const = default;
};

// A prompt with its answer, and how that came about.
struct TurnRecord {
  std::string model;
  std::string system;
  std::string prompt;
  std::string answer;
  std::string stop;  // "end_of_turn", "length", "interrupted", "error"
  uint64_t seed = 0;
  size_t prompt_tokens = 0;
  size_t new_tokens = 0;
  size_t replaces = 0;  // messages that it takes the place of
};

// What the records make together. A last line that a crash cut short is left out; Error::damaged names any
// other line that is no record.
Result<Conversation> read_conversation(std::string_view records);
Result<Conversation> read_conversation_file(const std::string& path);
// A file of its own, as /save writes it.
std::string conversation_records(const Conversation& conversation, const std::string& model, Wall now);

// "$XDG_STATE_HOME/bitctl/chats"; empty where the user has no home.
std::string transcript_folder();
// The one begun last; Error::not_found where there is none.
Result<std::string> newest_transcript(const std::string& folder);

class Transcript {
 public:
  // Keeps nothing until it has a folder.
  explicit Transcript(const Clock& clock = system_clock()) : clock_(clock) {}

  void keep_in(std::string folder) { folder_ = std::move(folder); }
  // The next turn begins a file, which repeats `before` first. Nothing is written before that.
  void begin(Conversation before = {});
  // Goes on with that file. Error::locked where another chat does.
  Result<Conversation> take_up(const std::string& path);

  // Each is one write(2): what was said outlives this process, though not a power cut.
  Status add(const TurnRecord& turn);
  Status undo(size_t messages);

  const std::string& path() const { return path_; }  // empty: no file yet

 private:
  Status create(const std::string& model);
  Status append(std::string_view lines);

  const Clock& clock_;
  std::string folder_;
  std::string path_;
  Fd file_;  // locked as long as it is open
  Conversation before_;
  std::string model_;  // as the file says by now
  std::string system_;
};

}  // namespace bitctl
