#include <fmt/format.h>

#include <charconv>

#include "base/exit_code.h"
#include "base/read_file.h"
#include "base/replace_file.h"
#include "chat/repl.h"

namespace bitctl {
namespace {

constexpr size_t kMaxReadBytes = size_t{1} << 20;

constexpr std::string_view kKeysHelp =
    "Ctrl+D behind a text, or a line that is just /send, sends as well. Ctrl+C stops the answer. Up and "
    "Down: older\n"
    "prompts, Ctrl+R looks for one, Ctrl+G edits in $VISUAL or $EDITOR. Ctrl+D on an empty line leaves.\n";

}  // namespace

void Repl::execute(const SlashCommand& command) {
  using Kind = SlashCommand::Kind;
  switch (command.kind) {
    case Kind::prompt:
      return session_->submit(command.text);
    case Kind::help:
      return say((options_.enter_sends
                      ? "Enter sends; Ctrl+Enter, Alt+Enter and Ctrl+J break the line. "
                      : "Enter breaks the line; Ctrl+Enter (where the terminal tells it), Alt+Enter "
                        "and Ctrl+J send.\n") +
                 std::string(kKeysHelp) + slash_command_help());
    case Kind::status:
      return say(session_->status());
    case Kind::stats:
      return say(session_->stats());
    case Kind::model:
      return session_->use_model({.path = command.text});
    case Kind::latest:
      return say_unless(session_->use_latest());
    case Kind::retry:
      if (!session_->retry()) say("nothing has failed");
      return;
    case Kind::system:
      session_->set_system(command.text);
      return say(command.text.empty() ? "no system prompt from here on"
                                      : "system prompt set, from the next prompt on");
    case Kind::set:
      if (const Status set = session_->sampling().set(command.text); !set) return say_unless(set);
      return say("from the next answer on: " + session_->sampling().summary());
    case Kind::seed:
      return set_seed(command.text);
    case Kind::show:
      return show(command.text);
    case Kind::regen:
      return say_unless(session_->regenerate());
    case Kind::compare:
      return compare(command.text);
    case Kind::undo: {
      const auto taken_back = session_->undo();
      return say(taken_back ? "taken back: " + *taken_back : taken_back.error().message);
    }
    case Kind::edit:
      return edit_last();
    case Kind::read:
      return read_file(command.text);
    case Kind::clear: {
      const Status cleared = session_->clear();
      return say(cleared ? "a new conversation" : cleared.error().message);
    }
    case Kind::save:
      return save(command.text);
    case Kind::load:
      return load(command.text);
    case Kind::send:
      return;
    case Kind::quit:
      return leave(kOk);
    case Kind::unknown:
      return say(command.text);
  }
}

void Repl::say_unless(const Status& done) {
  if (!done) say(done.error().message);
}

void Repl::show(const std::string& what) {
  if (what.empty() || what == "params") return say(session_->sampling().table());
  if (what == "prompt") return session_->show_prompt();
  if (what == "template") return session_->show_template();
  say(fmt::format("/show params, prompt or template; not {}", what));
}

void Repl::edit_last() {
  const auto taken_back = session_->undo();
  if (!taken_back) return say(taken_back.error().message);
  composer_.put(*taken_back);
}

// Into the prompt, where it can be read and a question be put to it; nothing is sent.
void Repl::read_file(const std::string& path) {
  const auto content = read_small_file(path, kMaxReadBytes, Links::follow);
  if (!content) return say(content.error().message);
  composer_.put(cleaned_paste(*content));
}

void Repl::save(const std::string& path) {
  if (path.empty()) {
    const std::string& kept = session_->transcript_path();
    return say(kept.empty() ? "nothing has been said yet; from the first answer on it is kept"
                            : "kept in " + kept);
  }
  const Conversation& conversation = session_->conversation();
  if (conversation.messages.empty()) return say("nothing has been said yet");
  const Status saved = replace_file(
      path, conversation_records(conversation, session_->model_name(), std::chrono::system_clock::now()));
  say(saved ? fmt::format("{} messages saved in {}", conversation.messages.size(), path)
            : saved.error().message);
}

void Repl::load(const std::string& path) {
  auto conversation = read_conversation_file(path);
  if (!conversation) return say(conversation.error().message);
  const size_t messages = conversation->messages.size();
  const Status taken = session_->go_on_with(std::move(*conversation));
  say(taken ? fmt::format("{} messages loaded from {}", messages, path) : taken.error().message);
}

// Answers the last prompt once more, by both; the conversation stays as it is.
void Repl::compare(const std::string& words) {
  if (comparison_) return say("a comparison is going on; Ctrl+C stops it");
  Conversation before = session_->conversation();
  if (before.messages.empty()) return say("there is no prompt to compare by yet");
  auto models = models_to_compare(words, session_->run());
  if (!models) return say(models.error().message);
  std::string prompt = before.messages[before.messages.size() - 2].content;
  before.messages.resize(before.messages.size() - 2);
  say("⏳ both answer the last prompt, one after the other...");
  comparison_.emplace(loop_, options_, opener_,
                      ComparedPrompt{std::move(before), std::move(prompt), session_->sampling()},
                      std::move(*models), [this](const std::vector<ComparedAnswer>& answers) {
                        if (answers.size() < 2)
                          say_dim("[interrupted]");
                        else
                          say(side_by_side(answers, terminal_.width()));
                        comparison_.reset();
                      });
}

void Repl::set_seed(const std::string& text) {
  uint64_t seed = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, seed);
  if (text.empty())
    session_->sampling().draw_seed();
  else if (error != std::errc() || rest != end)
    return say(fmt::format("a seed is a whole number from 0 on, not {}", text));
  else
    session_->sampling().set_seed(seed);
  say("from the next answer on: " + session_->sampling().summary());
}

}  // namespace bitctl
