// What a sent text means: a prompt, or a command that begins with '/'. Pure.
#pragma once

#include <string>
#include <string_view>

namespace bitctl {

struct SlashCommand {
  enum class Kind {
    prompt,
    help,
    status,
    model,
    retry,
    latest,
    system,
    set,
    show,
    regen,
    compare,
    undo,
    edit,
    read,
    clear,
    save,
    load,
    seed,
    stats,
    send,
    quit,
    unknown,  // and no text of it ever reaches the model
  };
  Kind kind = Kind::prompt;
  // The prompt ("//x" is the prompt "/x"), what stands behind the command's name, or why it is none.
  std::string text = {};

  bool operator==(const SlashCommand&) const = default;
};

SlashCommand interpret(std::string_view text);

std::string slash_command_help();

}  // namespace bitctl
